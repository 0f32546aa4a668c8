"""A run that onloads is killed in the middle of a cell: its pruned layers are not left on the disk."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from suite.results import load_record
from tests import PATIENCE_S
from tests.e2e.held_method import begun, install, let_go, starting, write_held_suite

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def start(tmp_path):
    """Starts the suite, its models in their files."""
    suite, found = write_held_suite(tmp_path), install(tmp_path / "site")
    paths = os.pathsep.join([found["PYTHONPATH"], str(REPOSITORY)])
    surroundings = {**found, "PYTHONPATH": paths, "PRUNEBENCH_SCRATCH": str(tmp_path / "scratch")}
    with starting(suite, tmp_path, surroundings) as call:
        yield partial(call, "--placement", "onload", "--device", "cpu")


def layers(folder):
    """The files of pruned layers in the scratch."""
    return list((folder / "scratch").rglob("layer-*.safetensors"))


def test_what_a_kill_leaves_goes_with_the_next_run_which_completes(start, tmp_path):
    process = start()
    begun(tmp_path)
    assert layers(tmp_path), "the cell that waits has pruned"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert layers(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*/*.json")}
    assert before
    let_go(tmp_path)
    process = start()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert list((tmp_path / "scratch").iterdir()) == []
    after = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*/*.json")}
    assert {path: after[path] for path in before} == before
    assert {load_record(path).placement for path in after} == {"onload"}


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_takes_them_along(start, tmp_path, asked):
    process = start()
    begun(tmp_path)
    assert layers(tmp_path)
    process.send_signal(asked)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert layers(tmp_path) == []
