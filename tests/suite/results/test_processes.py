"""The processes that share work on many files: they start anywhere, cost only time, end with the parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.results.records import index
from suite.storage import processes
from tests import PATIENCE_S
from tests.suite.results.test_index import assert_index, make_tree, put, read_tree

NOISE = """
import os, sys
print("INFO: loaded", flush=True)
def reads(event, of):
    if event == "open" and str(of[0]).endswith(".json"):
        os.write(1, b"INFO: opened" + b"!" * 2**21)
sys.addaudithook(reads)
"""
"""Prints before a worker's program begins, and from then on, at length, whenever a record is opened."""
DEATH = """
import os, sys
def reads(event, of):
    if event == "open" and "wanda" in str(of[0]):
        os.kill(os.getpid(), 9)
sys.addaudithook(reads)
"""
"""Kills a worker that opens one record of several."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def at_start(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every process that starts from here on run that first."""
    put(tmp_path / "start" / "sitecustomize.py", text.encode())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"))


def only_workers_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> Any:
        raise AssertionError(f"left to the parent: {path}")

    monkeypatch.setattr(processes, "BATCH", 3)
    monkeypatch.setattr(index, "read_bytes", refused)


def test_many_files_are_read_by_as_many_processes_as_there_are_cpus(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    in_processes = processes._in_processes

    def counted(call: Any, batches: Sequence[Any], n: int) -> Any:
        started.append(n)
        return in_processes(call, batches, n)

    monkeypatch.setattr(processes, "_in_processes", counted)
    monkeypatch.setattr(processes, "_usable_cpus", lambda: 3)
    read_tree(tree)
    assert started == []
    monkeypatch.setattr(processes, "MANY", 10)
    assert_index(read_tree(tree), tree)
    monkeypatch.setattr(processes, "_usable_cpus", lambda: 64)
    read_tree(tree)
    assert started == [3, 8]


@pytest.mark.parametrize("program", ["/no/such/program", "false", ""])
def test_without_workers_everything_is_read_all_the_same(
    tree: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", program.encode())
    assert_index(read_tree(tree, workers=2), tree)


def test_where_no_process_may_start_everything_is_read_all_the_same(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: Any) -> Any:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", refused)
    assert_index(read_tree(tree, workers=2), tree)


def test_what_a_worker_prints_does_not_mix_with_its_answers(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start(NOISE, tmp_path, monkeypatch)
    with monkeypatch.context() as patched:
        only_workers_read(patched)
        contents = read_tree(tree, workers=2)
    assert_index(contents, tree)


def test_a_search_path_with_odd_entries_is_passed_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [*sys.path, tmp_path, "d\u00e9j\u00e0 {vu}"])
        only_workers_read(patched)
        contents = read_tree(tree, workers=2)
    assert_index(contents, tree)


def test_with_a_search_path_that_no_worker_can_use_everything_is_read_all_the_same(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, object(), None, lambda: None])
    assert_index(read_tree(tree, workers=2), tree)


def test_what_a_worker_dies_of_is_read_without_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start(DEATH, tmp_path, monkeypatch)
    monkeypatch.setattr(processes, "BATCH", 3)
    assert_index(read_tree(tree, workers=2), tree)


def script(tmp_path: Path, root: Path) -> list[str]:
    """A user's script that reads in two processes, and has no guard against being imported."""
    text = f"""
import signal
from pathlib import Path
from suite.results.records import index
from suite.storage import processes
# Started in the background, as tests may be, a process ignores Ctrl-C, and so would those it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
processes.BATCH = 1
files = list(index.record_files([Path({str(root)!r})]))
print(len(index.read_index(files, workers=2).records))
"""
    return [sys.executable, str(put(tmp_path / "script.py", text.encode()))]


def test_a_script_without_a_guard_is_run_once(tmp_path: Path, tree: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(script(tmp_path, tree), capture_output=True, text=True, env=environment, check=True)
    n_records = len(read_tree(tree).records)
    assert (done.stdout, done.stderr) == (f"{n_records}\n", "")


@contextmanager
def workers_at_work(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A script and its two workers, each of which waits for what a record holds."""
    folder = tmp_path / "tree" / "model"
    folder.mkdir(parents=True)
    pipes = [folder / f"{name}--0.5--00000000.json" for name in ("a", "b")]
    for pipe in pipes:
        os.mkfifo(pipe)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        script(tmp_path, tmp_path / "tree"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as parent:
        ends = [os.open(pipe, os.O_WRONLY) for pipe in pipes]  # from here on both workers wait for text
        try:
            started = psutil.Process(parent.pid).children()
            yield parent, [one for one in started if "spawn_main" in " ".join(one.cmdline())]
        finally:
            if parent.poll() is None:
                os.killpg(parent.pid, signal.SIGKILL)
            for end in ends:
                os.close(end)


def test_an_interrupt_ends_the_workers_and_only_the_parent_says_so(tmp_path: Path) -> None:
    with workers_at_work(tmp_path) as (parent, workers):
        os.killpg(parent.pid, signal.SIGINT)
        _, said = parent.communicate(timeout=PATIENCE_S)
        assert len(workers) == 2 and not any(worker.is_running() for worker in workers)
    assert parent.returncode != 0
    assert said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt")


def test_workers_whose_parent_is_killed_end(tmp_path: Path) -> None:
    with workers_at_work(tmp_path) as (parent, workers):
        parent.kill()
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert len(workers) == 2 and not alive
