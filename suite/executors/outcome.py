"""How the cells of a plan ended, and the records that say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from suite.cell import Cell
from suite.results import ResultStore
from suite.results.records.record import Failure, Record
from suite.watcher import Watcher

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class FailedCell:
    """A cell that was run and has no numbers.

    Attributes:
        record: what there is of it: the phase that failed, the error, its traceback.
    """

    record: Record

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.record.cell

    @property
    def reason(self) -> str:
        """The phase, and the error in one line."""
        failure = self._failure
        return f"{failure.phase}: {next(iter(failure.message.splitlines()), '') or failure.error}"

    @property
    def traceback(self) -> str:
        """Where the error came from."""
        return self._failure.traceback

    @property
    def _failure(self) -> Failure:
        assert self.record.failure is not None
        return self.record.failure

    def __repr__(self) -> str:
        return f"<{self.cell.label} failed, {self.reason}>"


@dataclass(frozen=True)
class Outcome:
    """How the cells of a plan ended.

    Attributes:
        finished: cells that were run and have numbers.
        kept: cells whose record stood already.
        failed: cells that were run and failed.
    """

    finished: tuple[Cell, ...]
    kept: tuple[Cell, ...]
    failed: tuple[FailedCell, ...]


class RecordWriter:
    """Stores each record as soon as it is there, whoever ran the cell.

    Args:
        store: where records go.
        watcher: hears how each cell ended.
        on_written: gets each record's file once it is on disk.
    """

    def __init__(
        self, store: ResultStore, watcher: Watcher, on_written: Callable[[Path], None] | None = None
    ) -> None:
        self._store = store
        self._watcher = watcher
        self._on_written = on_written
        self._finished: list[Cell] = []
        self._kept: list[Cell] = []
        self._failed: list[FailedCell] = []

    def keep(self, cell: Cell) -> None:
        """The cell's record stood already."""
        self._kept.append(cell)
        self._watcher.cell_ended(cell, "kept")

    def write(self, record: Record, items: pd.DataFrame | None) -> None:
        """Stores a record.

        Raises:
            OSError: it could not be written (a full disk); all earlier ones stand.
        """
        cell = record.cell
        path = self._store.write(record, items)
        if record.failure is None:
            self._finished.append(cell)
            self._watcher.cell_ended(cell, "complete", record)
        else:
            failed = FailedCell(record)
            self._failed.append(failed)
            self._watcher.cell_ended(cell, f"failed: {failed.reason}", record)
        if self._on_written is not None:
            self._on_written(path)

    @property
    def outcome(self) -> Outcome:
        """How the cells ended so far."""
        return Outcome(tuple(self._finished), tuple(self._kept), tuple(self._failed))


__all__ = ["FailedCell", "Outcome", "RecordWriter"]
