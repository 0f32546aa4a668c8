"""Cells one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suite.executors.outcome import Outcome, RecordWriter
from suite.planning.resume import PlannedCell
from suite.results import ResultStore
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    from suite.running.model_session import ModelSession


def run_here(
    planned: Sequence[PlannedCell],
    session: ModelSession,
    store: ResultStore,
    watcher: Watcher | None = None,
    on_written: Callable[[Path], None] | None = None,
) -> Outcome:
    """Runs cells one after another; each record is on disk before the next cell begins.

    Args:
        planned: what to run, in order; cells of one model should be neighbours.
        session: keeps what cells of one model share.
        store: where records go.
        watcher: hears of progress.
        on_written: gets each record's file once it is on disk.

    Raises:
        OSError: a record could not be written (a full disk); all earlier ones stand.
    """
    watcher = watcher or Silent()
    writer = RecordWriter(store, watcher, on_written)
    run_with(planned, session, writer, watcher)
    return writer.outcome


def run_with(
    planned: Sequence[PlannedCell], session: ModelSession, writer: RecordWriter, watcher: Watcher
) -> None:
    """Likewise, with a writer that is there already."""
    from suite.running.run_cell import run_cell

    for entry in planned:
        if not entry.runs:
            writer.keep(entry.cell)
            continue
        watcher.cell_started(entry.cell)
        writer.write(*run_cell(entry.cell, session, watcher))


__all__ = ["run_here", "run_with"]
