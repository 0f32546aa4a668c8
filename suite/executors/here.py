"""Cells one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suite.executors.plan import Outcome, PlannedCell
from suite.executors.tally import Tally
from suite.results import ResultStore
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    from suite.workbench import Workbench


def run_here(
    planned: Sequence[PlannedCell],
    workbench: Workbench,
    store: ResultStore,
    watcher: Watcher | None = None,
    on_written: Callable[[Path], None] | None = None,
) -> Outcome:
    """Runs cells one after another; each record is on disk before the next cell begins.

    Args:
        planned: what to run, in order; cells of one model should be neighbours.
        workbench: keeps what cells of one model share.
        store: where records go.
        watcher: hears of progress.
        on_written: gets each record's file once it is on disk.

    Raises:
        OSError: a record could not be written (a full disk); all earlier ones stand.
    """
    watcher = watcher or Silent()
    tally = Tally(store, watcher, on_written)
    run_with(planned, workbench, tally, watcher)
    return tally.outcome


def run_with(planned: Sequence[PlannedCell], workbench: Workbench, tally: Tally, watcher: Watcher) -> None:
    """Likewise, with a tally that is there already."""
    from suite.harness import run_cell

    for entry in planned:
        if not entry.runs:
            tally.keep(entry.cell)
            continue
        watcher.cell_started(entry.cell)
        tally.write(*run_cell(entry.cell, workbench, watcher))


__all__ = ["run_here", "run_with"]
