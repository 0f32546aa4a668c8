"""docs/ci/gate.sh, run whole on the tiny model: every exit code it promises."""

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import PATIENCE_S
from tests.e2e.own_method import environment, install, turn_around, write_own_suite

SCRIPT = Path(__file__).parents[2] / "docs" / "ci" / "gate.sh"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture
def gate(tmp_path):
    def call(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", SCRIPT, *map(str, arguments)],
            cwd=tmp_path,
            env={**environment(tmp_path / "site"), **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return call


@pytest.mark.slow
def test_from_the_first_run_to_a_regression(gate, tmp_path):
    module = install(tmp_path / "site")
    suite = write_own_suite(tmp_path)
    # A blank in a path is what an unquoted variable breaks at.
    sides = (tmp_path / "the baseline", tmp_path / "the candidate")
    baseline, candidate = sides

    first = gate(suite, *sides)
    assert first.returncode == 3, first.stderr
    assert "there is no baseline" in first.stderr and "--accept" in first.stderr
    assert not baseline.exists()

    accepted = gate("--accept", suite, *sides)
    assert accepted.returncode == 0, accepted.stderr
    assert len(list(baseline.glob("*/*.json"))) == 2

    same = gate(suite, *sides)
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.splitlines()[-1].startswith("no regression: ")
    assert "same masks" in same.stdout
    assert (candidate / "gate.md").read_text().startswith("## prunebench: No regression")

    turn_around(module)
    worse = gate(suite, *sides)
    assert worse.returncode == 1, worse.stdout + worse.stderr
    assert "kl_divergence" in worse.stdout and "other masks" in worse.stdout
    assert "a regression" in worse.stderr
    assert (candidate / "gate.md").read_text().startswith("## prunebench: Regression")
    assert int(ElementTree.parse(candidate / "gate.xml").getroot()[0].get("failures")) > 0
    assert (candidate / "report.html").exists()

    tolerances = tmp_path / "all of it.toml"
    names = ("perplexity", "kl_divergence", "top1_agreement")
    tolerances.write_text("".join(f"[{name}]\nignore = true\n" for name in names))
    tolerated = gate(suite, *sides, GATE_TOLERANCES=str(tolerances), GATE_EXISTING="skip")
    assert tolerated.returncode == 0, tolerated.stdout + tolerated.stderr

    # A method that fails is worse than one that is worse.
    module.write_text(module.read_text().replace("scores = -", "raise ValueError('no')\n        scores = -"))
    failing = gate(suite, *sides)
    assert failing.returncode == 1, failing.stdout + failing.stderr
    assert "newly failing" in failing.stdout
    before = {path: path.read_bytes() for path in baseline.glob("*/*")}
    refused = gate("--accept", suite, *sides)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert {path: path.read_bytes() for path in baseline.glob("*/*")} == before


@pytest.mark.slow
def test_wrong_input_is_2_and_one_line(gate, tmp_path):
    suite = tmp_path / "bad.toml"
    suite.write_text("patterns = 5\n")
    for arguments in ([suite], ["--acept"], ["a", "b", "c", "d"], ["--accept", suite, "b", "c"]):
        done = gate(*arguments)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "prunebench").exists()


@pytest.mark.slow
def test_a_suite_that_cannot_run_is_not_compared_with_what_an_earlier_run_left(gate, tmp_path):
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    (candidate / "report.html").write_text("of yesterday")
    # A cache that cannot be made: the model cannot be had.
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'name = "mine"\nmodels = ["smollm2-135m"]\npatterns = ["0.5"]\n[[methods]]\nname = "magnitude"\n'
        '[[perplexity]]\ncorpus = "wiki-sample"\n'
    )
    (tmp_path / "cache").write_text("a file")
    done = gate(suite, "baseline", candidate, PRUNEBENCH_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 3, done.stderr
    assert "nothing was compared" in done.stderr
    assert not (candidate / "report.html").exists()


def test_a_run_that_was_interrupted_is_no_baseline(gate, tmp_path):
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    (candidate / "report.html").write_text("2 of 7 cells, ended early")
    done = gate("--accept", "regression", tmp_path / "baseline", candidate)
    assert done.returncode == 2
    assert "holds no finished run" in done.stderr and not (tmp_path / "baseline").exists()


def test_its_own_help_is_its_header(gate):
    done = gate("--help")
    assert done.returncode == 0
    assert "gate.sh --accept [SUITE]" in done.stdout
    assert "set -euo" not in done.stdout and not done.stdout.startswith("#")
