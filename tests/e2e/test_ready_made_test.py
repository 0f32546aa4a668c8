"""docs/ci/test_regression.py in a method's own repository, from the first day to a regression."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from suite.planning.suite_cells import parse_suite, plan
from tests import PATIENCE_S
from tests.e2e.own_method import environment, install, turn_around, write_own_suite

READY_MADE = Path(__file__).parents[2] / "docs" / "ci"


@pytest.fixture
def repository(tmp_path) -> Path:
    """The ready-made test with a suite of the method on the tiny model."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(READY_MADE / "test_regression.py", folder)
    write_own_suite(folder).rename(folder / "regression.toml")
    return folder


def run(repository: Path, site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=repository,
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.slow
def test_from_the_first_day_to_a_regression(repository, tmp_path):
    module = install(tmp_path / "site")
    first = run(repository, tmp_path / "site")
    assert first.returncode == 1, first.stdout
    assert "pytest --update-baselines makes the candidate the baseline" in first.stdout

    updated = run(repository, tmp_path / "site", "--update-baselines")
    assert updated.returncode == 0, updated.stdout
    assert "regression-baseline: 2 records written" in updated.stdout

    turn_around(module)
    worse = run(repository, tmp_path / "site")
    assert worse.returncode == 1, worse.stdout
    assert "AssertionError" in worse.stdout and "kl_divergence" in worse.stdout

    module.write_text(module.read_text().replace("scores = -", "raise ValueError('no')\n        scores = -"))
    failing = run(repository, tmp_path / "site")
    assert failing.returncode == 1, failing.stdout
    assert "1 cell failed:" in failing.stdout and "prune: no" in failing.stdout

    module.write_text(module.read_text().replace("raise ValueError('no')\n        scores = -", "scores = "))
    mended = run(repository, tmp_path / "site")
    assert mended.returncode == 0, mended.stdout


def test_the_ready_made_suite_is_one():
    text = (READY_MADE / "regression.toml").read_text()
    assert text.count('"my-method"') == 1
    config = parse_suite(text.replace('"my-method"', '"ria"').encode(), file="regression.toml")
    assert (config.dtype, config.threads) == ("float32", 2)
    assert [cell.method for cell in plan(config, dtype="float32")] == ["dense", "ria", "ria", "wanda"]
