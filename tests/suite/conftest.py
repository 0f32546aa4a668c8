"""The command, run in an empty folder on the tiny model."""

import json
import sys

import pytest

from suite.cli import main
from suite.results.records.record import body_digest
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


@pytest.fixture
def everywhere(prunebench, prune, model, text, tmp_path):
    """What the commands say of a model, each the same: prune and evaluate, resident and onloaded, and run."""

    def call():
        suite = tmp_path / "suite.toml"
        suite.write_text(
            f'name = "s"\nmodels = ["{model}"]\npatterns = ["0.5"]\n[[methods]]\nname = "magnitude"\n'
            f'[[perplexity]]\ncorpus = "{text}"\nseqlen = 32\n'
        )
        wanda = ("--method", "wanda", "--sparsity", "0.5")
        measured = ("evaluate", model, "--perplexity", text, "--seqlen", 32, "--task", "none")
        rest = ("--prompts", "none", "--no-speed", "--dtype", "float32", "--placement")
        lines = {
            *(refusal(prune(*wanda, "--placement", placement)) for placement in ("resident", "onload")),
            *(refusal(prunebench(*measured, *rest, placement)) for placement in ("resident", "onload")),
        }
        (line,) = lines
        assert line.removeprefix("prunebench: ") in refusal(prunebench("run", suite))
        assert not (tmp_path / "pruned").exists()
        return line

    return call


def edit_json(path, **keys):
    """Changes keys of a JSON file, which need not be there."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **keys}))


def edit_pruning(folder, n_zeros=None, **of_record):
    """Changes what a `pruning.json` says, its record sealed anew."""
    path = folder / "pruning.json"
    content = json.loads(path.read_text())
    content["n_zeros"] |= n_zeros or {}
    record = {**content["record"], **of_record}
    del record["body_digest"]
    content["record"] = {**record, "body_digest": body_digest(record)}
    path.write_text(json.dumps(content))


def with_metric(folder, name, value):
    """The metrics of a `pruning.json`, one of them with another value."""
    metrics = json.loads((folder / "pruning.json").read_text())["record"]["metrics"]
    return [{**metric, "value": value} if metric["name"] == name else metric for metric in metrics]


def refusal(answer: tuple[int, str, str]) -> str:
    """The one line that a wrong input gets."""
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("prunebench: ")
    return line
