"""The verdicts of the gate: on a metric, on a cell, and on a whole run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from suite.cell import Cell
from suite.results.gate.tolerances import Tolerance
from suite.results.records.record import CodeVersion
from suite.results.statistics.metrics import Better

Outcome = Literal["newly failing", "worse", "not comparable", "better", "same"]
"""Possible outcomes, the most serious first."""

OUTCOMES: tuple[Outcome, ...] = ("newly failing", "worse", "not comparable", "better", "same")

REGRESSION = 1
INCOMPARABLE = 3


@dataclass(frozen=True)
class MetricVerdict:
    """Verdict on one metric of a cell.

    Attributes:
        name: name of the metric.
        protocol: protocol of both values.
        kind: `quality`: measured per item; `count`: exact; `cost`: depends on the machine, and if it is not
            comparable, that does not affect the outcome of the cell.
        outcome: the outcome.
        baseline: the baseline's value; None if it has none.
        candidate: the candidate's value. Times and rates are scaled to the baseline's reference speed, if
            both have one.
        change: candidate minus baseline, as a share of the baseline's value if `relative` is set.
        relative: whether `change`, `low` and `high` are shares.
        low: lower end of the 95 % interval of `change`; None if it was not needed or there is none.
        high: upper end of that interval; None likewise.
        p_value: two-sided p-value of no difference, adjusted by Holm over the run; None if not needed.
        n: number of items; None if the metric has no items.
        tolerance: the tolerance applied; None if the values could not be compared.
        reason: explanation for a reader: why the values could not be compared, or why a large difference
            does not count.
    """

    name: str
    protocol: str
    kind: Literal["quality", "count", "cost"]
    outcome: Outcome
    baseline: float | None = None
    candidate: float | None = None
    change: float | None = None
    relative: bool = False
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n: int | None = None
    tolerance: Tolerance | None = None
    reason: str = ""

    def by_size(self, candidate: float, better: Better, tolerance: Tolerance) -> MetricVerdict:
        """Returns the verdict by the size of the change alone."""
        assert self.baseline is not None
        difference = candidate - self.baseline
        outcome: Outcome = "better" if (difference > 0) == (better == "higher") else "worse"
        relative = tolerance.relative is not None and self.baseline != 0
        return replace(
            self,
            outcome="same" if abs(difference) <= tolerance.reach(self.baseline) else outcome,
            candidate=candidate,
            change=difference / abs(self.baseline) if relative else difference,
            relative=relative,
            tolerance=tolerance,
        )

    @property
    def counts(self) -> bool:
        """Whether the outcome affects that of the cell; costs that are not comparable do not."""
        return self.kind != "cost" or self.outcome != "not comparable"


@dataclass(frozen=True)
class CellVerdict:
    """Verdict on one cell.

    Attributes:
        cell: the baseline's cell.
        candidate: the candidate's cell, which may differ in the `across` keys; None if it has none.
        metrics: verdicts on the metrics that either side measured.
        reason: why `metrics` is empty, if the cells could not be compared by metrics.
        whole: outcome for the cell as a whole, e.g. if it failed or another model was measured; None if the
            metrics decide.
        same_masks: whether both pruned exactly the same weights; None if nothing was pruned.
    """

    cell: Cell
    candidate: Cell | None = None
    metrics: tuple[MetricVerdict, ...] = ()
    reason: str = ""
    whole: Outcome | None = None
    same_masks: bool | None = None

    @property
    def label(self) -> str:
        """A short readable name, of both cells if their names differ."""
        if self.candidate is None or self.candidate.label == self.cell.label:
            return self.cell.label
        return f"{self.cell.label} / {self.candidate.label}"

    @property
    def outcome(self) -> Outcome:
        """The outcome for the cell as a whole, otherwise the most serious outcome of its metrics."""
        if self.whole is not None:
            return self.whole
        found = {metric.outcome for metric in self.metrics if metric.counts}
        return next((outcome for outcome in OUTCOMES if outcome in found), "same")


@dataclass(frozen=True)
class Verdict:
    """Verdict on a whole run.

    Attributes:
        baseline: name of the baseline.
        candidate: name of the candidate.
        cells: verdicts on the baseline's cells, in the order of the baseline.
        new: cells that only the candidate has; they are not judged.
        tolerances: origin of the tolerances.
        significance: accepted probability of any false alarm in the item tests of the run.
        baseline_code: versions of the code that made the baseline.
        candidate_code: versions of the code that made the candidate.
        remarks: caveats that weaken the verdict, one sentence each.
    """

    baseline: str
    candidate: str
    cells: tuple[CellVerdict, ...]
    new: tuple[Cell, ...]
    tolerances: str
    significance: float
    baseline_code: tuple[CodeVersion, ...] = field(default=())
    candidate_code: tuple[CodeVersion, ...] = field(default=())
    remarks: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """1 for a regression, 3 if something could not be compared, otherwise 0."""
        found = {cell.outcome for cell in self.cells}
        if found & {"newly failing", "worse"}:
            return REGRESSION
        return INCOMPARABLE if "not comparable" in found else 0

    @property
    def counts(self) -> dict[Outcome, int]:
        """Number of metrics per outcome; a cell judged as a whole counts once."""
        found = Counter(
            outcome
            for cell in self.cells
            for outcome in ([cell.whole] if cell.whole else [metric.outcome for metric in cell.metrics])
        )
        return {outcome: found[outcome] for outcome in OUTCOMES if found[outcome]}


__all__ = [
    "INCOMPARABLE",
    "OUTCOMES",
    "REGRESSION",
    "CellVerdict",
    "MetricVerdict",
    "Outcome",
    "Verdict",
]
