"""What runs cells in a process of its own: one session, one cell at a time."""

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
"""A worker tells how far it is no more often than this."""


@dataclass(frozen=True)
class Progress:
    """How far a worker is with its cell.

    Attributes:
        phase: what it does.
        done: steps of it.
        steps: how many there are; None = nobody knows.
    """

    phase: str
    done: int = 0
    steps: int | None = None


class Reporter:
    """A watcher that keeps how far the cell is, and now and then tells.

    Args:
        tell: gets it, at most a few times a second.
    """

    def __init__(self, tell: Callable[[Progress], None] | None = None) -> None:
        self.now = Progress("")
        self._tell = tell
        self._told = 0.0

    def cell_started(self, cell: Cell) -> None:
        """Starts anew."""
        self._say(Progress(""))

    def phase_started(self, name: str, steps: int | None) -> None:
        """A phase begins."""
        self._say(Progress(name, 0, steps))

    def stepped(self, steps: int = 1) -> None:
        """Work of it was done."""
        self._say(Progress(self.now.phase, self.now.done + steps, self.now.steps))

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """The result says it."""

    def _say(self, now: Progress) -> None:
        self.now = now
        if self._tell is not None and time.monotonic() - self._told >= REPORT_EVERY_S:
            self._told = time.monotonic()
            self._tell(now)


class CellWorker:
    """Runs cells, one at a time, and keeps what those of one model share.

    Args:
        device: where models are put, as `--device` names it.
        options: how the session is set up.
        threads: of torch, for cells that do not say; None = as many as the process has.
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
            cell: the cell.
            inputs: gives what the cells of its model read; asked when the model is new here.
            watcher: hears of progress.
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
            except Exception as error:  # whatever is wrong with this machine: the cell's record says it
                return failed_record(cell, "load", error), None
            return run_cell(cell, self._session, watcher)


__all__ = ["CellWorker", "Progress", "Reporter"]
