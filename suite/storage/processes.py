"""Work on many files that several processes share; where they fail it is done without them."""

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
"""From so many items on several processes are quicker, although each takes a moment to start."""
MOST_WORKERS = 8
BATCH = 64
"""Items that a process takes at a time."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_main = threading.Lock()


def in_batches(
    call: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], workers: int | None = None
) -> list[Result]:
    """What a function gives for many items, in their order.

    Args:
        call: gives a result for each item of a batch; a function of a module, so that it can be pickled.
        items: all of them.
        workers: how many processes share the work; 1 = this one alone. None = as many as there are CPUs to
            use, if there are many items.
    """
    if workers is None:
        workers = min(_usable_cpus(), MOST_WORKERS) if len(items) >= MANY else 1
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    with _no_collection():
        done = _in_processes(call, batches, workers) if workers > 1 and batches else {}
        # A process that could not start, or died, costs time and nothing else.
        missing = {place: call(batch) for place, batch in enumerate(batches) if place not in done}
    return [one for place in range(len(batches)) for one in (done | missing)[place]]


@contextmanager
def hidden_main() -> Iterator[None]:
    """Keeps new processes from running the caller's script once more, which need not have a guard.

    `spawn` runs what is `__main__` when a process starts, and a worker needs nothing of it.
    """
    with _main:
        own = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = own


def _in_processes(
    call: Callable[[Sequence[Item]], list[Result]], batches: Sequence[Sequence[Item]], n: int
) -> dict[int, list[Result]]:
    """The results by the place of the batch, without those that no process lived to give."""
    # A fork may hang where this process has threads, as torch does.
    context = multiprocessing.get_context("spawn")
    done: dict[int, list[Result]] = {}
    theirs, ours = context.Pipe(duplex=False)
    with theirs, suppress(Exception), ProcessPoolExecutor(n, context, _begin, (theirs,)) as pool:
        try:
            with hidden_main(), _held_interrupts():
                futures = [pool.submit(call, batch) for batch in batches]
            for place, future in enumerate(futures):
                done[place] = future.result()
        finally:
            ours.close()  # ends them, whatever they are at
    return done


@contextmanager
def _held_interrupts() -> Iterator[None]:
    """Processes that start meanwhile are deaf to Ctrl-C, which reaches them too: one traceback is enough."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: Connection) -> None:
    """First in a process: it ends with its parent, whose matter Ctrl-C is too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    gc.disable()


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv_bytes()  # never sent: the pipe is closed, also by the death of the other end
    os._exit(1)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_collection() -> Iterator[None]:
    # Records refer to no cycles, and to look for some among millions of objects takes seconds.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


__all__ = ["BATCH", "MANY", "MOST_WORKERS", "hidden_main", "in_batches"]
