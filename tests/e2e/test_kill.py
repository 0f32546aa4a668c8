"""A run that is killed at any moment resumes: nothing finished is lost, redone or left half-written."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from suite.results import ResultStore, load_record
from tests import PATIENCE_S
from tests.tiny import write_suite

pytestmark = pytest.mark.slow

KILLS = 10
REPOSITORY = Path(__file__).parent.parent.parent


def start(suite: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "suite.cli", "run", str(suite), "--out", str(out)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(out: Path) -> dict[Path, bytes]:
    """Every record under its final name; each must parse, with its digest and its side file whole."""
    records = {path: path.read_bytes() for path in out.glob("*/*.json")}
    for path in records:
        record = load_record(path)
        assert record.status == "complete"
        assert path.with_name(record.side_file.name).exists()
    return records


def wait_for_work(process: subprocess.Popen[bytes], out: Path, known: int) -> None:
    """Waits until the run writes a record of its own, so that a kill hits work and not the start."""
    while process.poll() is None and len(list(out.glob("*/*.json"))) <= known:
        time.sleep(0.005)


def test_killed_ten_times_over(tmp_path):
    suite = write_suite(
        tmp_path,
        methods="magnitude wanda sparsegpt llm-barber",
        patterns=[*(f"0.{n}" for n in range(10, 90, 4)), "2:4", "4:8"],
    )
    out = tmp_path / "runs"
    chance = random.Random(20)
    seen: dict[Path, bytes] = {}
    interrupted = 0
    for attempt in range(KILLS):
        process = start(suite, out)
        if attempt % 3:
            wait_for_work(process, out, len(seen))
            time.sleep(chance.uniform(0, 0.2))
        else:
            time.sleep(chance.uniform(0, 6))
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        process.communicate()
        now = finished(out)
        assert {path: now.get(path) for path in seen} == seen, "a finished record was lost or written again"
        seen = now
    assert interrupted >= KILLS - 2
    assert seen

    process = start(suite, out)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err.decode()
    done = finished(out)
    assert len(done) == 1 + 4 * 22
    assert {path: done[path] for path in seen} == seen
    assert not ResultStore(out).records().unreadable
    assert (out / "report.html").exists()
