"""Workers, the driver and the whole cluster are killed in the middle of a cell: what was finished stays."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from suite.results import ResultStore, load_record
from tests import PATIENCE_S
from tests.e2e.held_method import begun, install, is_gone, let_go, starting, write_held_suite

pytestmark = pytest.mark.slow

pytest.importorskip("ray")
REPOSITORY = Path(__file__).parent.parent.parent
N_CELLS = 7


@pytest.fixture
def suite(tmp_path):
    return write_held_suite(tmp_path)


@pytest.fixture
def surroundings(tmp_path):
    found = install(tmp_path / "site")
    paths = os.pathsep.join([found["PYTHONPATH"], str(REPOSITORY)])
    return {
        **found,
        "PYTHONPATH": paths,
        "PRUNEBENCH_SCRATCH": str(tmp_path / "scratch"),
        # A cluster takes in those who know its token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "f" * 64,
    }


@pytest.fixture
def start(suite, surroundings, tmp_path):
    """Starts the suite with an executor."""
    with starting(suite, tmp_path, surroundings) as call:
        yield call


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Ray cluster of this machine's own; gives its address and its first process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Short, since sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "ray.scripts.scripts",
                    "start",
                    "--head",
                    "--block",
                    f"--port={port}",
                ),
                *("--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"),
                *("--object-store-memory=100000000", "--disable-usage-stats"),
            ],
            env={**environment, "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                assert process.poll() is None, "the cluster did not start"
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}", process
        finally:
            kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that came of it, at once."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def records(tmp_path: Path) -> dict[str, tuple[int, bytes]]:
    """Every record's file and content: a second write would change the former."""
    files = (tmp_path / "runs").glob("*/*--*.json")
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in files}


def wait_for_records(tmp_path: Path, n: int) -> dict[str, tuple[int, bytes]]:
    deadline = time.monotonic() + PATIENCE_S
    while len(found := records(tmp_path)) < n:
        assert time.monotonic() < deadline, f"{len(found)} records of {n}"
        time.sleep(0.05)
    return found


def assert_complete(tmp_path: Path, before: dict[str, tuple[int, bytes]]) -> None:
    after = records(tmp_path)
    assert len(after) == N_CELLS
    assert before.items() <= after.items(), "no finished cell was written again"
    for path in (tmp_path / "runs").glob("*/*--*.json"):
        assert load_record(path).status == "complete"
    assert not ResultStore(tmp_path / "runs").records().unreadable


WORKERS = {"processes": ["--workers", "2"], "ray": ["--executor", "ray", "--workers", "2"]}
RAY = pytest.mark.ray


@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=RAY)])
def test_a_killed_worker_costs_its_cell_a_second_try(start, tmp_path, executor):
    run = start(*WORKERS[executor])
    victim = begun(tmp_path)
    before = wait_for_records(tmp_path, N_CELLS - 1)  # the other worker does the rest meanwhile
    os.kill(victim, signal.SIGKILL)
    assert begun(tmp_path, but=frozenset([victim])) != victim
    let_go(tmp_path)
    out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, err
    assert_complete(tmp_path, before)
    assert len(re.findall(r"^complete ", err, re.MULTILINE)) == N_CELLS, "each is told once"
    assert "Traceback" not in err and out.strip() == "runs/report.html"


@pytest.mark.parametrize(
    "executor, signal_",
    [
        ("processes", signal.SIGKILL),
        ("processes", signal.SIGINT),
        pytest.param("ray", signal.SIGKILL, marks=RAY),
        pytest.param("ray", signal.SIGINT, marks=RAY),
        pytest.param("ray", signal.SIGTERM, marks=RAY),
    ],
)
def test_a_driver_that_ends_takes_its_workers_with_it_and_the_command_resumes(
    start, tmp_path, executor, signal_
):
    run = start(*WORKERS[executor])
    worker = begun(tmp_path)
    before = wait_for_records(tmp_path, N_CELLS - 1)
    descendants = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
    run.send_signal(signal_)
    _, err = run.communicate(timeout=PATIENCE_S)
    if signal_ == signal.SIGKILL:
        assert run.returncode == -signal.SIGKILL
    else:
        assert run.returncode == 130, err
        assert err.strip().splitlines()[-1].startswith("prunebench: interrupted; finished cells are kept")
    assert all(is_gone(process) for process in [worker, *descendants])
    assert records(tmp_path) == before
    let_go(tmp_path)
    again = start(*WORKERS[executor], "--json")
    out, err = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, err
    told = json.loads(out)
    assert (told["finished"], told["kept"]) == (1, N_CELLS - 1)
    assert told["executor"] == ("ray" if executor == "ray" else "local")
    assert_complete(tmp_path, before)


@pytest.mark.ray
def test_a_cluster_that_is_killed_ends_the_run_in_one_line_and_another_one_completes_it(
    start, surroundings, tmp_path
):
    with cluster(surroundings) as (address, head):
        run = start("--executor", "ray", "--address", address)
        begun(tmp_path)
        before = wait_for_records(tmp_path, N_CELLS - 1)
        kill_all(head)
        _, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 3, err
    last = err.strip().splitlines()[-1]
    assert last == "prunebench: the Ray cluster is gone; finished cells are kept, the same command resumes"
    assert "Traceback" not in err
    assert records(tmp_path) == before
    let_go(tmp_path)
    with cluster(surroundings) as (address, _):
        again = start("--executor", "ray", "--address", address)
        _, err = again.communicate(timeout=PATIENCE_S)
        assert again.returncode == 0, err
    assert_complete(tmp_path, before)


@pytest.mark.ray
def test_a_node_with_another_prunebench_is_refused_and_both_are_named(start, surroundings, tmp_path):
    other = tmp_path / "other" / "prunebench-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: prunebench\nVersion: 9.9.9\n")
    path = os.pathsep.join([str(other.parent), surroundings["PYTHONPATH"]])
    with cluster({**surroundings, "PYTHONPATH": path}) as (address, _):
        run = start("--executor", "ray", "--address", address)
        out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 2, err
    (line,) = err.strip().splitlines()
    ours = re.escape(version("prunebench"))
    assert re.search(rf"node \S+ has prunebench 9\.9\.9, and {ours} here: install the same on both", line)
    assert out == "" and not (tmp_path / "runs").exists()


@pytest.mark.ray
def test_what_is_no_cluster_is_said_in_one_line(start, tmp_path):
    with socket.socket() as silent:  # takes connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        cases = {
            f"127.0.0.1:{port}": "no Ray cluster answered within 20 s",
            "127.0.0.1:1": "nobody answers there",
            "somewhere": "give auto, or HOST:PORT",
        }
        for address, said in cases.items():
            run = start("--executor", "ray", "--address", address)
            _, err = run.communicate(timeout=PATIENCE_S)
            assert run.returncode == 2, err
            (line,) = err.strip().splitlines()
            assert f"--address {address}: " in line and said in line
