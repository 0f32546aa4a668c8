"""The processes that read many records: they start anywhere, cost only time, and end with the parent."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.results.records import outline, processes
from suite.results.records.outline import read_outlines
from tests import PATIENCE_S
from tests.suite.results.test_outline import assert_outlines, make_tree, put

NOISE = """
import os, sys
print("INFO: loaded", flush=True)
def reads(event, of):
    if event == "open" and str(of[0]).endswith(".json"):
        os.write(1, b"INFO: opened" + b"!" * 2**21)
sys.addaudithook(reads)
"""
"""Prints before the worker's program begins, and from then on, at length, whenever a record is opened."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def answer(data: bytes, checksum: int | None = None) -> bytes:
    """As a worker sends it."""
    return processes._MARK + processes._HEAD.pack(len(data), checksum or zlib.crc32(data)) + data


def only_workers_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(paths: Sequence[str]) -> Any:
        raise AssertionError(f"left to the parent: {paths}")

    monkeypatch.setattr(outline, "BATCH", 3)
    monkeypatch.setattr(outline, "_read_batch", refused)


def test_many_files_are_read_by_as_many_processes_as_there_are_cpus(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def counted(function: str, batches: list[list[str]], n: int) -> Any:
        started.append(n)
        return processes.in_processes(function, batches, n)

    monkeypatch.setattr(outline, "in_processes", counted)
    monkeypatch.setattr(outline, "_usable_cpus", lambda: 3)
    read_outlines(tree)
    assert started == []
    monkeypatch.setattr(outline, "MANY_FILES", 10)
    assert_outlines(read_outlines(tree), tree)
    monkeypatch.setattr(outline, "_usable_cpus", lambda: 64)
    read_outlines(tree)
    assert started == [3, 8]


@pytest.mark.parametrize("program", ["/no/such/program", "false", ""])
def test_without_workers_everything_is_read_all_the_same(
    tree: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    assert_outlines(read_outlines(tree, workers=2), tree)


def test_what_a_worker_prints_does_not_mix_with_its_answers(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "start" / "sitecustomize.py", NOISE.encode())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"))
    only_workers_read(monkeypatch)
    assert_outlines(read_outlines(tree, workers=2), tree)


def test_a_search_path_with_entries_that_are_no_text_is_passed_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path, object(), None, "d\u00e9j\u00e0 {vu}"])
    only_workers_read(monkeypatch)
    assert_outlines(read_outlines(tree, workers=2), tree)


@pytest.mark.parametrize(
    "answers",
    [
        b"INFO: loaded\n",
        b"INFO: loaded\n" * 200_000,
        processes._MARK,
        processes._MARK + b"\xff" * 100,
        answer(pickle.dumps(None))[:-1],
        answer(pickle.dumps(None)) + answer(pickle.dumps([None] * 3), checksum=1),
        answer(pickle.dumps(None)) + answer(b"cno_such_module\nno_such_name\n."),
        answer(pickle.dumps(None)) + answer(b"Fgarbage\n."),
    ],
    ids=["noise", "much", "mark", "length", "cut", "damaged", "unknown", "garbage"],
)
def test_what_a_worker_answers_with_garbage_is_read_without_it(
    tree: Path, tmp_path: Path, answers: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = put(tmp_path / "answers", answers)
    program = put(tmp_path / "program", f"#!/bin/sh\ncat {shlex.quote(str(said))}\n".encode())
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(outline, "BATCH", 3)
    assert_outlines(read_outlines(tree, workers=2), tree)


def test_a_worker_that_never_stops_printing_is_given_up(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put(tmp_path / "program", b"#!/bin/sh\nexec yes\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    assert_outlines(read_outlines(tree, workers=2), tree)


def script(tmp_path: Path, root: Path) -> list[str]:
    """A user's script that reads in two processes, and has no guard against being imported."""
    text = f"""
import signal
from pathlib import Path
from suite.results.records import outline
# Started in the background, as tests may be, a process ignores Ctrl-C, and so would those it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
outline.BATCH = 1
print(len(outline.read_outlines(Path({str(root)!r}), workers=2).records))
"""
    return [sys.executable, str(put(tmp_path / "script.py", text.encode()))]


def test_a_script_without_a_guard_is_run_once(tmp_path: Path, tree: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(script(tmp_path, tree), capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("11\n", "")


def test_an_interrupt_ends_the_workers_and_only_the_parent_says_so(tmp_path: Path) -> None:
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
        workers = psutil.Process(parent.pid).children()
        os.killpg(parent.pid, signal.SIGINT)
        try:
            _, said = parent.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, signal.SIGKILL)
            raise
    for end in ends:
        os.close(end)
    assert parent.returncode != 0
    assert said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt")
    assert len(workers) == 2 and not any(worker.is_running() for worker in workers)


def test_a_worker_whose_parent_is_gone_ends() -> None:
    with processes._start("suite.results.records.outline:_read_batch") as worker:
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait() == 0
