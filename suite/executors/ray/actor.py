"""The worker of a Ray cluster, as a Ray actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from suite.executors.options import WorkerOptions
from suite.executors.worker import CellWorker, Progress, Reporter

if TYPE_CHECKING:
    import pandas as pd

    from suite.cell import Cell
    from suite.results.records.record import Record


class CellActor:
    """Runs cells on a node, one at a time, and reports its progress meanwhile.

    It is an actor, rather than one task per cell, to keep model, dense reference and inputs between cells.
    """

    def __init__(self, device: str, options: WorkerOptions, threads: int | None) -> None:
        self._worker = CellWorker(device, options, threads)
        self._reporter = Reporter()

    def run(self, cell: Cell, inputs: Sequence[Any]) -> tuple[Record, pd.DataFrame | None]:
        """Runs a cell; `inputs` contains one Ray reference to what the cells of its model read."""
        import ray

        self._reporter = Reporter()
        return self._worker.run(cell, lambda: ray.get(inputs[0]), self._reporter)

    def progress(self) -> Progress:
        """Returns the current progress; can be called while `run` is running."""
        return self._reporter.now


__all__ = ["CellActor"]
