"""Workers in other processes, as the loop that feeds them sees them."""

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
"""What a worker is called: `cuda:1`, or the address of its node and a number."""


@dataclass(frozen=True)
class Finished:
    """A cell's record came in; `place` is the cell's in the plan."""

    worker: Worker
    place: int
    record: Record
    items: pd.DataFrame | None


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with the cell at `place` if it had one."""

    worker: Worker
    place: int | None
    reason: str


@dataclass(frozen=True)
class Told:
    """A worker says how far its cell at `place` is."""

    worker: Worker
    place: int
    progress: Progress


Event = Finished | Lost | Told


class Pool(Protocol):
    """Workers that run one cell at a time each."""

    def idle(self, n_waiting: int) -> Sequence[Worker]:
        """Workers without a cell; for `n_waiting` cells more are started as far as there is room."""
        ...

    def give(self, worker: Worker, place: int, cell: Cell) -> None:
        """Lets an idle worker run a cell."""
        ...

    def wait(self) -> Sequence[Event]:
        """What has happened; waits for something to happen, but not for ever.

        Raises:
            PoolError: there will be no worker any more.
        """
        ...

    def arrived(self) -> Sequence[Finished]:
        """Results that are there already; never waits."""
        ...

    def close(self) -> None:
        """Ends all workers, whatever they do."""
        ...


class PoolError(PruningError):
    """All workers are gone and no new ones can be had; the message is one line."""


class WorkerLostError(PruningError):
    """A cell's worker was lost each time it ran."""


__all__ = ["Event", "Finished", "Lost", "Pool", "PoolError", "Told", "Worker", "WorkerLostError"]
