"""The command, run in an empty folder on the tiny model."""

import sys

import pytest

from suite.cli import main
from tests.tiny import save_tiny_model, write_text


@pytest.fixture
def prunebench(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prunebench", *map(str, arguments)])
        capsys.readouterr()  # what making the model printed
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def model(tmp_path):
    return save_tiny_model(tmp_path / "model")


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.txt")


@pytest.fixture
def prune(prunebench, model, text):
    """`prunebench prune` of the tiny model with small calibration."""

    def call(*arguments: object) -> tuple[int, str, str]:
        return prunebench(
            *("prune", model, "--calibration", text, "--n-samples", 4, "--seqlen", 32),
            *("--dtype", "float32", "--out", "pruned", *arguments),
        )

    return call


def refusal(answer: tuple[int, str, str]) -> str:
    """The one line that a wrong input gets."""
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("prunebench: ")
    return line
