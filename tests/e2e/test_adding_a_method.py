"""The example of docs/adding-a-method.md, installed as a package of its own, found and pruned with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suite.results.records.pruning_file import read_pruning
from tests import PATIENCE_S
from tests.tiny import save_tiny_model, write_text

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def files_of(page: str) -> dict[str, str]:
    """The code blocks that say which file they are."""
    return dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the example was installed, without its dependencies: they are here."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in files_of(PAGE.read_text()).items():
        (source / name).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def prunebench(installed, tmp_path):
    """Runs the command in a process of its own, which finds the example as any installed package."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        program = f"import sys; sys.path.append({str(installed)!r}); from suite.cli import main; main()"
        # Entry points are found on sys.path; the page's files are not on it, only what pip installed.
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return call


def test_the_page_holds_a_whole_package():
    assert files_of(PAGE.read_text()).keys() == {"pyproject.toml", "prunebench_gram.py"}


@pytest.mark.slow
def test_it_is_listed_with_its_settings_and_where_it_comes_from(prunebench):
    rows = {row["name"]: row for row in json.loads(prunebench("list", "methods", "--json").stdout)}
    assert rows["gram"]["origin"] == "prunebench-gram"
    assert rows["gram"]["settings"] == {"power": 1.0}
    assert rows["wanda"]["origin"] == "built-in"


@pytest.mark.slow
def test_it_prunes_and_its_settings_are_checked(prunebench, tmp_path):
    model, text = save_tiny_model(tmp_path / "model"), write_text(tmp_path / "text.txt")
    small = ("--calibration", text, "--n-samples", 4, "--seqlen", 32, "--dtype", "float32")
    done = prunebench("prune", model, "--method", "gram", "--pattern", "2:4", "--set", "power=0.5", *small,
                      "--out", "pruned")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = read_pruning(tmp_path / "pruned")
    assert (told.record.cell.method, told.record.cell.settings) == ("gram", {"power": 0.5})
    assert told.sparsity == 0.5
    wrong = prunebench("prune", model, "--method", "gram", "--sparsity", 0.5, "--set", "power=0", *small,
                       "--out", "other")  # fmt: skip
    assert wrong.returncode == 2
    assert "power must be above 0" in wrong.stderr


@pytest.mark.slow
def test_it_keeps_its_promises(prunebench):
    done = prunebench("check-method", "gram", "--family", "llama", "--family", "gpt2", "--family", "mixtral")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_steps_stand_in_recipes_and_keep_their_promises(prunebench, tmp_path):
    rows = {row["name"]: row for row in json.loads(prunebench("list", "steps", "--json").stdout)}
    assert (rows["rescale"]["part"], rows["rescale"]["origin"]) == ("update", "prunebench-gram")
    model, text = save_tiny_model(tmp_path / "model"), write_text(tmp_path / "text.txt")
    done = prunebench(
        *("prune", model, "--recipe", "gram(power=0.5)|swaps|rescale", "--sparsity", 0.5, "--out", "pruned"),
        *("--calibration", text, "--n-samples", 4, "--seqlen", 32, "--dtype", "float32"),
    )
    assert done.returncode == 0, done.stderr
    record = read_pruning(tmp_path / "pruned").record
    assert record.cell.settings == {"recipe": "gram(power=0.5) | swaps | rescale"}
    assert record.code.part_versions == {"gram": 1, "swaps": 1, "rescale": 1}
    families = ("--family", "llama", "--family", "gpt2", "--family", "mixtral")
    checked = prunebench("check-method", "gram | rescale", *families)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_llm_barber_may_start_from_it(prunebench, tmp_path):
    model, text = save_tiny_model(tmp_path / "model"), write_text(tmp_path / "text.txt")
    done = prunebench(
        *("prune", model, "--method", "llm-barber", "--sparsity", 0.5, "--set", "initial=gram"),
        *("--set", "initial_settings.power=0.5", "--calibration", text, "--n-samples", 4, "--seqlen", 32),
        *("--dtype", "float32", "--out", "pruned"),
    )
    assert done.returncode == 0, done.stderr
    assert read_pruning(tmp_path / "pruned").record.code.part_versions == {"gram": 1}
