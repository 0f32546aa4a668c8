"""Distributes the cells of a plan to a pool of workers, and stores their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from methods.errors import InputError
from suite.cell import Cell
from suite.evaluation.inputs import Inputs, ModelKey, model_key
from suite.executors.outcome import RecordWriter
from suite.executors.pool import Finished, Lost, Pool, PoolError, Told, WorkerLostError
from suite.executors.queue import ATTEMPTS, CellQueue
from suite.executors.worker import Progress
from suite.planning.resume import PlannedCell, input_difference

if TYPE_CHECKING:
    from suite.results.records.record import Record

MAX_IDLE_DEATHS = 3
"""Abort after this many consecutive workers die before receiving a cell."""


class WorkersWatcher(Protocol):
    """Receives the progress of several workers."""

    def worker_at(self, worker: str, cell: Cell | None, progress: Progress) -> None:
        """Receives a worker's progress with its cell (None = the worker has no cell)."""


def drive(
    planned: Sequence[PlannedCell],
    pool: Pool,
    writer: RecordWriter,
    watcher: WorkersWatcher,
    inputs: Mapping[ModelKey, Inputs],
) -> None:
    """Runs the cells of a plan on a pool of workers; each record is written once it arrives.

    Args:
        planned: the plan.
        pool: the workers; closed at the end, also after an error.
        writer: stores the records.
        watcher: receives progress events.
        inputs: what the cells read on this machine; workers must read the same.

    Raises:
        PoolError: all workers are lost; all records received before are stored.
        OSError: a record could not be written.
    """
    for entry in planned:
        if not entry.runs:
            writer.keep(entry.cell)
    loop = _Loop([entry.cell for entry in planned if entry.runs], pool, writer, watcher, inputs)
    try:
        loop.run()
    except BaseException:  # also an interrupt: results that have already arrived are stored
        loop.store_what_arrived()
        raise
    finally:
        pool.close()


@dataclass
class _Loop:
    """The state of one call of `drive`."""

    cells: Sequence[Cell]
    pool: Pool
    writer: RecordWriter
    watcher: WorkersWatcher
    inputs: Mapping[ModelKey, Inputs]
    n_barren: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.queue = CellQueue(self.cells)

    def run(self) -> None:
        """Runs until no cell waits or is running."""
        queue = self.queue
        while queue.n_waiting or queue.n_running:
            for worker in self.pool.idle(queue.n_waiting):
                place = queue.take(worker)
                if place is not None:
                    self.watcher.worker_at(worker, self.cells[place], Progress(""))
                    self.pool.give(worker, place, self.cells[place])
            for event in self.pool.wait():
                if isinstance(event, Told):
                    self.watcher.worker_at(event.worker, self.cells[event.place], event.progress)
                elif isinstance(event, Lost):
                    self._lost(event)
                else:
                    self._finished(event)

    def store_what_arrived(self) -> None:
        """Stores the results that have arrived but were not yet processed."""
        for event in self.pool.arrived():
            self._finished(event)

    def _finished(self, event: Finished) -> None:
        self.n_barren = 0
        self.watcher.worker_at(event.worker, None, Progress(""))
        if self.queue.finished(event.place):
            self.writer.write(self._accepted(event), event.items)

    def _accepted(self, event: Finished) -> Record:
        """Returns the record, or a failed one if the worker's model or texts differ from those here."""
        from suite.running.run_cell import failed_record

        record, cell = event.record, self.cells[event.place]
        if record.status == "failed" or model_key(cell) not in self.inputs:
            return record
        difference = input_difference(record, self.inputs[model_key(cell)])
        if difference is None:
            return record
        return failed_record(
            cell, "load", InputError(f"the input on {event.worker} differs from the one here: {difference}")
        )

    def _lost(self, event: Lost) -> None:
        from suite.running.run_cell import failed_record

        self.watcher.worker_at(event.worker, None, Progress(""))
        if event.place is None:
            self.n_barren += 1
            if self.n_barren >= MAX_IDLE_DEATHS:
                raise PoolError(f"workers die before they get a cell, last {event.worker}: {event.reason}")
        elif not self.queue.lost(event.worker, event.place):
            cell = self.cells[event.place]
            reason = f"its worker was lost {ATTEMPTS} times, last {event.worker}: {event.reason}"
            self.writer.write(failed_record(cell, "run", WorkerLostError(reason)), None)


__all__ = ["MAX_IDLE_DEATHS", "WorkersWatcher", "drive"]
