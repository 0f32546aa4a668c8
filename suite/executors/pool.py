"""The interface of pools of workers in other processes, and the events that they report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from methods.errors import PruningError
from suite.cell import Cell
from suite.executors.worker import Progress

if TYPE_CHECKING:
    import pandas as pd

    from suite.results.records.record import Record

Worker = str
"""Name of a worker: `cuda:1`, or the address of its node and a number."""


@dataclass(frozen=True)
class Finished:
    """A worker has finished a cell; `place` is the cell's index among the cells to run."""

    worker: Worker
    place: int
    record: Record
    items: pd.DataFrame | None


@dataclass(frozen=True)
class Lost:
    """A worker is lost, and with it the run of the cell at `place` if it had one."""

    worker: Worker
    place: int | None
    reason: str


@dataclass(frozen=True)
class Told:
    """A worker reports its progress with the cell at `place`."""

    worker: Worker
    place: int
    progress: Progress


Event = Finished | Lost | Told


class Pool(Protocol):
    """A pool of workers, each of which runs one cell at a time."""

    def idle(self, n_waiting: int) -> Sequence[Worker]:
        """Returns idle workers; starts more, as far as there is room, if `n_waiting` cells need them."""
        ...

    def give(self, worker: Worker, place: int, cell: Cell) -> None:
        """Gives an idle worker a cell to run."""
        ...

    def wait(self) -> Sequence[Event]:
        """Waits for events and returns them; returns an empty sequence if nothing happens for a while.

        Raises:
            PoolError: all workers are lost, and no new ones can be started.
        """
        ...

    def arrived(self) -> Sequence[Finished]:
        """Returns results that have already arrived, without waiting."""
        ...

    def close(self) -> None:
        """Ends all workers, even busy ones."""
        ...


class PoolError(PruningError):
    """All workers are lost and no new ones can be started; the message is one line."""


class WorkerLostError(PruningError):
    """A cell's worker was lost each time it ran."""


__all__ = ["Event", "Finished", "Lost", "Pool", "PoolError", "Told", "Worker", "WorkerLostError"]
