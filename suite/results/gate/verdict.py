"""What the gate says: of a metric, of a cell, and of a run as a whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from suite.cell import Cell
from suite.results.gate.tolerances import Tolerance
from suite.results.records.record import CodeVersion
from suite.results.statistics.metrics import Better

Outcome = Literal["newly failing", "worse", "not comparable", "better", "same"]
"""From what matters most to what matters least."""

OUTCOMES: tuple[Outcome, ...] = ("newly failing", "worse", "not comparable", "better", "same")

REGRESSION = 1
INCOMPARABLE = 3


@dataclass(frozen=True)
class MetricVerdict:
    """One metric of a cell, the candidate's against the baseline's.

    Attributes:
        name: the metric.
        protocol: of both.
        kind: `quality`, which was measured item by item; `count`, which is exact; `cost`, which belongs to a
            machine and never keeps a run from being compared.
        outcome: what became of it.
        baseline: the baseline's value; None where it has none.
        candidate: the candidate's. A time is scaled to the baseline's reference speed, where both have one.
        change: candidate minus baseline, as a share of the baseline's value where `relative` is set.
        relative: whether `change`, `low` and `high` are shares.
        low: lower end of the 95 % interval of `change`; None where none was needed, or there is none.
        high: upper end; None likewise.
        p_value: of no difference, two-sided and adjusted by Holm over the run; None where it was not needed.
        n: items behind it; None where it has none.
        tolerance: what it was held against; None where it could not be compared.
        reason: what a reader should know: why it could not be compared, or why a large difference is none.
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
        """The verdict by the size of the change from the baseline's value alone."""
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
        """Whether the outcome decides about the cell's: costs of different machines do not."""
        return self.kind != "cost" or self.outcome != "not comparable"


@dataclass(frozen=True)
class CellVerdict:
    """One cell, the candidate's record against the baseline's.

    Attributes:
        cell: the baseline's.
        candidate: the candidate's, which may differ where it was asked to; None where it has none.
        metrics: those that both, or one, measured.
        reason: why there are none, where the cells could not be compared metric by metric.
        whole: the outcome where it is about the cell as a whole: it failed, or another model was measured.
        same_masks: whether both pruned exactly the same weights; None where nothing was pruned.
    """

    cell: Cell
    candidate: Cell | None = None
    metrics: tuple[MetricVerdict, ...] = ()
    reason: str = ""
    whole: Outcome | None = None
    same_masks: bool | None = None

    @property
    def label(self) -> str:
        """A short name for people; of both cells where they differ in it."""
        if self.candidate is None or self.candidate.label == self.cell.label:
            return self.cell.label
        return f"{self.cell.label} / {self.candidate.label}"

    @property
    def outcome(self) -> Outcome:
        """The gravest of its metrics'."""
        if self.whole is not None:
            return self.whole
        found = {metric.outcome for metric in self.metrics if metric.counts}
        return next((outcome for outcome in OUTCOMES if outcome in found), "same")


@dataclass(frozen=True)
class Verdict:
    """All cells of a run.

    Attributes:
        baseline: its name.
        candidate: its name.
        cells: those of the baseline, in its order.
        new: cells that only the candidate has: nothing is said of them.
        tolerances: where they came from.
        significance: the chance of a false alarm by items that the run allowed.
        baseline_code: the versions of the code that made it.
        candidate_code: likewise.
        remarks: what makes the run say less than it seems to, a sentence each.
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
        """1 for a regression, 3 where something could not be compared, else 0."""
        found = {cell.outcome for cell in self.cells}
        if found & {"newly failing", "worse"}:
            return REGRESSION
        return INCOMPARABLE if "not comparable" in found else 0

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many metrics, or cells without any, had each outcome."""
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
