"""A worker as a Ray actor."""

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
    """Runs cells on a node, one at a time, and says how far it is meanwhile.

    An actor and not a task a cell: it keeps the model, the dense reference and the inputs between cells.
    """

    def __init__(self, device: str, options: WorkerOptions, threads: int | None) -> None:
        self._worker = CellWorker(device, options, threads)
        self._reporter = Reporter()

    def run(self, cell: Cell, inputs: Sequence[Any]) -> tuple[Record, pd.DataFrame | None]:
        """Runs a cell; `inputs` is one reference to what the cells of its model read."""
        import ray

        self._reporter = Reporter()
        return self._worker.run(cell, lambda: ray.get(inputs[0]), self._reporter)

    def progress(self) -> Progress:
        """How far it is; answered beside `run`."""
        return self._reporter.now


__all__ = ["CellActor"]
