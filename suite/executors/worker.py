"""A worker runs cells in its own process: one session, one cell at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.evaluation.inputs import Inputs, ModelKey, model_key
from suite.executors.options import WorkerOptions, open_session
from suite.watcher import Watcher

if TYPE_CHECKING:
    import pandas as pd

    from suite.cell import Cell
    from suite.executors.worker_inputs import WorkerInputs
    from suite.results.records.record import Record
    from suite.running.model_session import ModelSession

REPORT_EVERY_S = 0.2
"""Shortest time between two progress reports of a worker, in seconds."""


@dataclass(frozen=True)
class Progress:
    """The progress of a worker with its cell.

    Attributes:
        phase: name of the current phase.
        done: number of finished steps of the phase.
        steps: number of all steps of the phase; None = unknown.
    """

    phase: str
    done: int = 0
    steps: int | None = None


class Reporter:
    """A watcher that stores the current progress of a cell, and reports it from time to time.

    Args:
        tell: called with the progress, at most once per `REPORT_EVERY_S`.
    """

    def __init__(self, tell: Callable[[Progress], None] | None = None) -> None:
        self.now = Progress("")
        self._tell = tell
        self._reported = 0.0

    def cell_started(self, cell: Cell) -> None:
        """Resets the progress."""
        self._update(Progress(""))

    def phase_started(self, name: str, steps: int | None) -> None:
        """Begins a phase."""
        self._update(Progress(name, 0, steps))

    def stepped(self, steps: int = 1) -> None:
        """Adds finished steps of the phase."""
        self._update(Progress(self.now.phase, self.now.done + steps, self.now.steps))

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """Does nothing: the end of a cell is reported by its result."""

    def _update(self, now: Progress) -> None:
        self.now = now
        if self._tell is not None and time.monotonic() - self._reported >= REPORT_EVERY_S:
            self._reported = time.monotonic()
            self._tell(now)


class CellWorker:
    """Runs cells, one at a time, and keeps what those of one model share.

    Args:
        device: the device of the models, named as for `--device`.
        options: how the session is set up.
        threads: number of torch threads for cells that do not set it; None = torch's current number.
    """

    def __init__(self, device: str, options: WorkerOptions, threads: int | None = None) -> None:
        self._device = device
        self._options = options
        self._threads = threads
        self._inputs: dict[ModelKey, Inputs] = {}
        self._session: ModelSession | None = None

    def run(
        self, cell: Cell, inputs: Callable[[], WorkerInputs], watcher: Watcher
    ) -> tuple[Record, pd.DataFrame | None]:
        """Runs one cell.

        Args:
            cell: the cell to run.
            inputs: returns what the cells of its model read; called only for the first cell of a model.
            watcher: receives progress events.
        """
        import torch

        from suite.machine.threads import using_threads
        from suite.running.run_cell import failed_record, run_cell

        with using_threads(self._threads):
            try:
                key = model_key(cell)
                if key not in self._inputs:
                    self._inputs[key] = inputs().unpacked()
                if self._session is None:
                    self._session = open_session(torch.device(self._device), self._inputs, self._options)
            except Exception as error:  # any problem of this machine is reported in the cell's record
                return failed_record(cell, "load", error), None
            return run_cell(cell, self._session, watcher)


__all__ = ["CellWorker", "Progress", "Reporter"]
