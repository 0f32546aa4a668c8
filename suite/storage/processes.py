"""Distributes work on many files over several processes; if they fail, this process does the work."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import TypeVar

MANY = 400
"""Number of items from which several processes are faster, despite the time that each takes to start."""
MOST_WORKERS = 8
BATCH = 64
"""Number of items that a process works on at a time."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_main = threading.Lock()


def in_batches(
    call: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], workers: int | None = None
) -> list[Result]:
    """Returns the results of a function for many items, in the order of the items.

    Args:
        call: returns one result for each item of a batch; a module-level function, so that it can be pickled.
        items: all items.
        workers: number of processes that share the work; 1 = only this process. None = one per usable CPU,
            at most `MOST_WORKERS`, if there are at least `MANY` items, otherwise 1.
    """
    if workers is None:
        workers = min(_usable_cpus(), MOST_WORKERS) if len(items) >= MANY else 1
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    with _no_collection():
        done = _in_processes(call, batches, workers) if workers > 1 and batches else {}
        # Batches of processes that could not start, or died, are computed here: only time is lost.
        missing = {place: call(batch) for place, batch in enumerate(batches) if place not in done}
    return [one for place in range(len(batches)) for one in (done | missing)[place]]


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keeps new processes from running the caller's script again, which may lack a `__main__` guard.

    With `spawn`, a new process imports the `__main__` module of its parent; a worker needs nothing from it.
    """
    with _main:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _in_processes(
    call: Callable[[Sequence[Item]], list[Result]], batches: Sequence[Sequence[Item]], n: int
) -> dict[int, list[Result]]:
    """Returns the results by the index of the batch, without those that failed or whose process died."""
    # A fork may hang if this process has threads, and torch starts some.
    context = multiprocessing.get_context("spawn")
    done: dict[int, list[Result]] = {}
    theirs, ours = context.Pipe(duplex=False)
    with theirs, suppress(Exception), ProcessPoolExecutor(n, context, _begin, (theirs,)) as pool:
        try:
            with without_main_module(), _held_interrupts():
                futures = [pool.submit(call, batch) for batch in batches]
            for place, future in enumerate(futures):
                done[place] = future.result()
        finally:
            ours.close()  # ends the processes, even if they are still working
    return done


@contextmanager
def _held_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C in processes started in the body, so that only the parent prints a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: Connection) -> None:
    """Initializes a worker process: it ignores Ctrl-C and ends when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    gc.disable()


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv_bytes()  # returns only when the pipe closes, which the death of the parent also causes
    os._exit(1)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_collection() -> Iterator[None]:
    # Records contain no reference cycles, and searching millions of objects for some takes seconds.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


__all__ = ["BATCH", "MANY", "MOST_WORKERS", "in_batches", "without_main_module"]
