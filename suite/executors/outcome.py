"""Stores the records of a plan and counts how its cells ended."""

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
    """A cell that was run and failed.

    Attributes:
        record: the failed record, with the phase that failed, the error and its traceback.
    """

    record: Record

    @property
    def cell(self) -> Cell:
        """The cell that failed."""
        return self.record.cell

    @property
    def reason(self) -> str:
        """The phase and the first line of the error message."""
        failure = self._failure
        return f"{failure.phase}: {next(iter(failure.message.splitlines()), '') or failure.error}"

    @property
    def traceback(self) -> str:
        """The traceback of the error."""
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
        finished: cells that were run successfully.
        kept: cells that were not run because they already had a record.
        failed: cells that were run and failed.
    """

    finished: tuple[Cell, ...]
    kept: tuple[Cell, ...]
    failed: tuple[FailedCell, ...]


class RecordWriter:
    """Stores records, from whatever worker they come, and keeps track of how the cells ended.

    Args:
        store: the store of the records.
        watcher: receives the end of each cell.
        on_written: called with each record's file once it is written.
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
        """Counts a cell as kept, as it already had a record."""
        self._kept.append(cell)
        self._watcher.cell_ended(cell, "kept")

    def write(self, record: Record, items: pd.DataFrame | None) -> None:
        """Stores a record.

        Raises:
            OSError: it could not be written (e.g. a full disk); all earlier ones are kept.
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
