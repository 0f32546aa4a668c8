"""Workers in processes of this machine, one process per GPU, or several on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from typing import Any

from suite.cell import Cell
from suite.evaluation.inputs import Inputs, ModelKey, model_key
from suite.executors.options import WorkerOptions
from suite.executors.pool import Event, Finished, Lost, Told, Worker
from suite.executors.worker_inputs import WorkerInputs
from suite.storage.processes import without_main_module

WAIT_S = 1.0
"""Longest wait for events, in seconds."""
END_S = 5.0
"""Seconds that a terminated worker has to end before it is killed."""


@dataclass
class _Running:
    """The process of one worker, and the index of its cell (None = idle)."""

    process: BaseProcess
    connection: Connection
    device: str
    place: int | None = None


class ProcessPool:
    """Workers on the devices of this machine, one per device; one that dies is replaced.

    Args:
        devices: the device of each worker, such as `cuda:0`; a device may occur several times.
        options: how each session is set up.
        inputs: what the cells read.
        threads: number of torch threads per worker, for cells that do not set it.
    """

    def __init__(
        self,
        devices: Sequence[str],
        options: WorkerOptions,
        inputs: Mapping[ModelKey, Inputs],
        threads: int | None,
    ) -> None:
        self._options = options
        self._inputs = {key: WorkerInputs.of(of_model) for key, of_model in inputs.items()}
        self._threads = threads
        many = len(set(devices)) < len(devices)
        self._vacant = {
            f"{device} ({n})" if many else device: device for n, device in enumerate(devices, start=1)
        }
        self._workers: dict[Worker, _Running] = {}

    def idle(self, n_waiting: int) -> list[Worker]:
        """See `Pool.idle`."""
        free = [name for name, worker in self._workers.items() if worker.place is None]
        while self._vacant and len(free) < n_waiting:
            name, device = next(iter(self._vacant.items()))
            del self._vacant[name]
            self._workers[name] = self._start(device)
            free.append(name)
        return free

    def give(self, worker: Worker, place: int, cell: Cell) -> None:
        """See `Pool.give`."""
        running = self._workers[worker]
        running.place = place
        with suppress(OSError):  # a dead worker, which `wait` will report
            running.connection.send((place, cell, self._inputs[model_key(cell)]))

    def wait(self) -> list[Event]:
        """See `Pool.wait`."""
        return self._events(WAIT_S)

    def arrived(self) -> list[Finished]:
        """See `Pool.arrived`."""
        return [event for event in self._events(0) if isinstance(event, Finished)]

    def close(self) -> None:
        """See `Pool.close`."""
        for running in self._workers.values():
            running.process.terminate()
        for running in self._workers.values():
            running.process.join(END_S)
            if running.process.is_alive():
                running.process.kill()
                running.process.join()
            running.connection.close()
        self._workers.clear()

    def _start(self, device: str) -> _Running:
        # A forked process could not use CUDA or the threads of this one.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, device, self._options, self._threads), name=f"prunebench {device}"
        )
        with without_main_module():
            process.start()
        theirs.close()
        return _Running(process, ours, device)

    def _events(self, timeout: float) -> list[Event]:
        by_connection = {running.connection: name for name, running in self._workers.items()}
        events: list[Event] = []
        for ready in wait_for(list(by_connection), timeout):
            name = by_connection[ready]  # type: ignore[index]
            running = self._workers[name]
            try:
                events.append(_event(name, running, running.connection.recv()))
            except (EOFError, OSError):
                events.append(self._removed(name))
        return events

    def _removed(self, name: Worker) -> Lost:
        """Removes a dead worker and frees its device for another one."""
        running = self._workers.pop(name)
        running.process.join(END_S)
        running.connection.close()
        self._vacant[name] = running.device
        code = running.process.exitcode
        killed = code is not None and code < 0
        reason = f"killed by {signal.Signals(-code).name}" if killed and code else f"exit code {code}"
        return Lost(name, running.place, reason)


def _event(name: Worker, running: _Running, message: tuple[Any, ...]) -> Event:
    kind, place, *content = message
    if kind == "told":
        return Told(name, place, *content)
    running.place = None
    return Finished(name, place, *content)


def serve(connection: Connection, device: str, options: WorkerOptions, threads: int | None) -> None:
    """Runs the cells that arrive on `connection` until it is closed; the main loop of a worker's process."""
    from suite.executors.worker import CellWorker, Progress, Reporter

    # Ctrl-C reaches the whole process group, but only the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = CellWorker(device, options, threads)
    while True:
        try:
            place, cell, inputs = connection.recv()
        except (EOFError, OSError):
            return

        def tell(progress: Progress, place: int = place) -> None:
            connection.send(("told", place, progress))

        record, items = worker.run(cell, lambda inputs=inputs: inputs, Reporter(tell))  # type: ignore[misc]
        connection.send(("done", place, record, items))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


__all__ = ["ProcessPool", "serve"]
