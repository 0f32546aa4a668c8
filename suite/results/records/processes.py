"""Other processes that call a function on batches: they start anywhere, and if they fail cost only time."""

from __future__ import annotations

import gc
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import IO, Any

MOST_NOISE = 2**20
"""Bytes that a process may print besides its answers, before each of them."""
_WORKER = (
    # Before anything is imported: what a library prints then goes where errors go, not among the answers.
    "import os, sys; answers = os.dup(1); os.dup2(2, 1); sys.path[:] = {path!a}; "
    "from suite.results.records.processes import serve; serve(answers, {function!a})"
)
_MARK = b"\x00prunebench answer\xff"
_HEAD = struct.Struct("<QI")
"""Stands between the mark and an answer: its length and its checksum."""


def in_processes(function: str, batches: Sequence[Any], n: int) -> dict[int, Any]:
    """Has `n` processes call a function on every batch.

    They are plain programs, not children of `multiprocessing`: a fork may hang where the parent has threads,
    as torch does; a spawned child imports the parent's main module, which may be a user's script; and where
    the parent is killed, the children of a pool wait for ever, while these find that their input ends.

    Args:
        function: `module:name`; what it takes and gives can be pickled.
        batches: what it is called on.
        n: processes.

    Returns:
        What it gave, by the place of the batch. Those are left out that a process did not live to answer.
    """
    done: dict[int, Any] = {}
    pending = iter(range(len(batches)))  # `next` of it is one step, whichever thread asks

    def drive(worker: subprocess.Popen[bytes]) -> None:
        assert worker.stdin is not None and worker.stdout is not None
        # Whatever goes wrong here, this worker is done with, and what it leaves out is read without it.
        with suppress(Exception):
            _receive(worker.stdout)  # else both might wait, it to print a banner and we to send a batch
            for place in pending:
                worker.stdin.write(pickle.dumps(batches[place]))
                worker.stdin.flush()
                done[place] = _receive(worker.stdout)

    workers: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        stack.callback(_reap, workers)
        threads = stack.enter_context(ThreadPoolExecutor(n))
        # Before the threads are waited for: one that waits for an answer finds the end of it, also on Ctrl-C.
        stack.callback(_kill, workers)
        with suppress(OSError):
            workers += (_start(function) for _ in range(min(n, len(batches))))
        for driver in [threads.submit(drive, worker) for worker in workers]:
            driver.result()
    return done


def _start(function: str) -> subprocess.Popen[bytes]:
    path = [entry for entry in sys.path if isinstance(entry, str)]  # Python itself passes over the others
    return subprocess.Popen(
        [sys.executable or "", "-c", _WORKER.format(path=path, function=function)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Ctrl-C reaches it too, and one traceback is enough
    )


def _kill(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.kill()


def _reap(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        with suppress(OSError), worker:  # what it was never sent cannot be flushed
            pass


def serve(answers: int, function: str) -> None:
    """The program of a process: answers the batches that come in until there are no more.

    Args:
        answers: the descriptor that was its standard output when it started.
        function: as for `in_processes`.
    """
    module, _, name = function.partition(":")
    call = getattr(import_module(module), name)
    gc.disable()
    with open(0, "rb", closefd=False) as requests, open(answers, "wb") as out:
        _send(out, None)
        while True:
            try:
                batch = pickle.load(requests)
            except EOFError:
                return
            _send(out, call(batch))


def _send(out: IO[bytes], answer: Any) -> None:
    data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    out.write(_MARK + _HEAD.pack(len(data), zlib.crc32(data)))
    out.write(data)
    out.flush()


def _receive(answers: IO[bytes]) -> Any:
    """The next answer, which may stand behind what was printed before the worker's program began.

    Raises:
        EOFError: there is none, or not within `MOST_NOISE` bytes.
        ValueError: it is damaged.
    """
    seen = answers.read(len(_MARK))
    n_skipped = 0
    while seen != _MARK:
        if len(seen) < len(_MARK) or n_skipped == MOST_NOISE:
            raise EOFError("no answer")
        seen = seen[1:] + answers.read(1)
        n_skipped += 1
    length, checksum = _HEAD.unpack(answers.read(_HEAD.size))
    data = answers.read(length)
    # Bytes of others in the midst of it might unpickle to other numbers.
    if len(data) != length or zlib.crc32(data) != checksum:
        raise ValueError("a damaged answer")
    return pickle.loads(data)


__all__ = ["MOST_NOISE", "in_processes", "serve"]
