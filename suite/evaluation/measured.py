"""The measurements of one model, in the form of its record and its side file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suite.results.records.items import AnswerSet, ItemRow, TaskOutcomes, WindowDivergence, WindowLosses
from suite.results.records.record import Metric
from suite.results.statistics.metrics import Direction, metric_of
from suite.results.statistics.single import Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Measured:
    """Collects the measurements of one model.

    Attributes:
        metrics: the metrics of the record.
        windows: losses per window, one entry per protocol.
        divergences: divergence from the dense model per window, one entry per protocol.
        tasks: the outcomes of each task.
        answers: the answers to a set of prompts.
        rows: the rows of the side file.
        remarks: remarks for the reader, one sentence each.
    """

    metrics: list[Metric] = field(default_factory=list)
    windows: list[WindowLosses] = field(default_factory=list)
    divergences: list[WindowDivergence] = field(default_factory=list)
    tasks: list[TaskOutcomes] = field(default_factory=list)
    answers: AnswerSet | None = None
    rows: list[ItemRow] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, protocol: str, estimate: Estimate, direction: Direction) -> None:
        """Adds a metric with its interval."""
        self.metrics.append(metric_of(name, protocol, estimate, direction))

    def items(self) -> pd.DataFrame:
        """Returns the rows as a data frame with the columns of `ItemRow`."""
        import pandas as pd

        frame = pd.DataFrame(self.rows, columns=list(ItemRow._fields))
        return frame.astype({"value": "float64", "n_tokens": "Int64"})


def finite(values: Iterable[float]) -> tuple[float | None, ...]:
    """Returns the values, with None in place of those that are not finite."""
    return tuple(value if abs(value) < float("inf") else None for value in values)


__all__ = ["Measured", "finite"]
