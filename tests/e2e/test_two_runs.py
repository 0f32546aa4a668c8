"""Two runs of one suite on one results tree at the same time: both end well, and the tree is one tree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from suite.planning.suite_cells import load_suite, plan
from suite.results import ResultStore
from suite.storage.leftovers import ABANDONED_AFTER_S, PREFIX
from tests import PATIENCE_S
from tests.tiny import write_suite

pytestmark = pytest.mark.slow

PATTERNS = ["0.2", "0.4", "0.5", "0.6", "0.8", "2:4"]
CELLS = 1 + 3 * len(PATTERNS)
REPOSITORY = Path(__file__).parent.parent.parent


def start(suite: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "suite.cli", "run", str(suite), "--out", str(out), "--json", *options],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def check_tree(out: Path, suite: Path) -> None:
    """Each cell of the plan once, whole and with its items; nothing half-written; what is left over goes."""
    store = ResultStore(out)
    contents = store.records()
    assert not contents.unreadable
    cells = plan(load_suite(str(suite)), dtype="float32")
    assert sorted(stored.record.cell.digest for stored in contents.records) == sorted(c.digest for c in cells)
    for stored in contents.records:
        assert (stored.record.status, stored.failure) == ("complete", None)
        assert store.items(stored) is not None
    assert not list(out.rglob(f"{PREFIX}*"))
    for path in out.glob("*/*"):  # of a cell that both ran, one run's items lost their record
        os.utime(path, (time.time() - 2 * ABANDONED_AFTER_S,) * 2)
    store.sweep()
    assert len(list(out.glob("*/*"))) == 2 * len(cells)


def test_two_runs_at_once_share_a_tree(tmp_path: Path) -> None:
    """Both run every cell, whatever the other has of it already, and replace each other's records."""
    suite = write_suite(tmp_path, methods="magnitude wanda sparsegpt", patterns=PATTERNS)
    out = tmp_path / "runs"
    runs = [start(suite, out, "--existing", "rerun") for _ in range(2)]
    for run in runs:
        answer, err = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 0, err.decode()
        found = json.loads(answer)
        assert (found["finished"], found["kept"], found["failed"]) == (CELLS, 0, [])
    check_tree(out, suite)
    assert (out / "report.html").exists()


def test_a_run_goes_on_where_the_one_beside_it_is_killed(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, methods="magnitude wanda sparsegpt", patterns=PATTERNS)
    out = tmp_path / "runs"
    doomed, other = start(suite, out), start(suite, out)
    while doomed.poll() is None and len(list(out.glob("*/*.json"))) < 3:
        time.sleep(0.005)
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    _, err = other.communicate(timeout=PATIENCE_S)
    assert (doomed.returncode, other.returncode) == (-signal.SIGKILL, 0), err.decode()
    again = start(suite, out)  # takes away what the dead one may have left half-written
    answer, err = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, err.decode()
    assert json.loads(answer)["kept"] == CELLS
    check_tree(out, suite)
