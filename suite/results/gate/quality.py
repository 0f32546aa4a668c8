"""Judges quality metrics by their items: first the size of a difference, then its significance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, expm1

from suite.results.gate.tolerances import TASK, Tolerance, Tolerances
from suite.results.gate.verdict import MetricVerdict
from suite.results.statistics.paired import holm
from suite.results.statistics.pairing import NOT_IN_BASELINE, PairedItems, mean


@dataclass(frozen=True)
class JudgedItems:
    """One metric of one cell, judged by size but not yet by significance.

    Attributes:
        items: the paired items of the metric.
        verdict: preliminary verdict by the size of the difference alone.
    """

    items: PairedItems
    verdict: MetricVerdict

    @property
    def is_comparable(self) -> bool:
        """Whether the metric has a difference, so that it counts as a comparison of the run."""
        return self.verdict.change is not None


def by_size(paired: Sequence[PairedItems], tolerances: Tolerances) -> list[JudgedItems]:
    """Judges each metric of one cell by the size of its difference.

    Leaves out ignored metrics and metrics that only the candidate has, which are new and not a change.
    """
    found = []
    for items in paired:
        tolerance = tolerances.of(TASK if items.is_task else items.name, items.protocol)
        if not tolerance.ignore and items.reason != NOT_IN_BASELINE:
            found.append(JudgedItems(items, _by_size(items, tolerance)))
    return found


def by_significance(judged: Sequence[JudgedItems], significance: float) -> list[MetricVerdict]:
    """Returns the final verdicts of a run: differences beyond their tolerance must also be significant.

    All comparisons of the run form one family of tests, including those within their tolerance, which could
    also have raised an alarm. The latter are not tested but enter the family with a p-value of 1.

    Args:
        judged: the metrics of all cells, in order.
        significance: accepted probability of any false alarm in the family.
    """
    n_tests = sum(one.is_comparable for one in judged)
    tested = [
        one.items.difference() if one.verdict.outcome in ("worse", "better") and one.is_comparable else None
        for one in judged
    ]
    family: list[float | None] = [
        None if not one.is_comparable else 1.0 if found is None or found.p_value is None else found.p_value
        for one, found in zip(judged, tested, strict=True)
    ]
    verdicts = []
    for one, found, p_value in zip(judged, tested, holm(family), strict=True):
        verdict = one.verdict
        if found is not None:
            low, high = (None if end is None else _change(one, end) for end in (found.low, found.high))
            verdict = replace(verdict, p_value=p_value, low=low, high=high)
            if one.items.fewest_p_value * n_tests > significance:
                reason = f"{verdict.n} items are too few to tell a difference from chance"
                verdict = replace(verdict, outcome="not comparable", reason=reason)
            elif p_value is None or p_value > significance:
                verdict = replace(verdict, outcome="same", reason="beyond the tolerance, but not significant")
        verdicts.append(verdict)
    return verdicts


def _by_size(items: PairedItems, tolerance: Tolerance) -> MetricVerdict:
    verdict = MetricVerdict(items.name, items.protocol, "quality", "same", tolerance=tolerance)
    if items.reason:
        return replace(verdict, outcome="not comparable", reason=items.reason, tolerance=None)
    first, second = _value(items, items.first), _value(items, items.second)
    verdict = replace(verdict, baseline=first, candidate=second, n=len(items.first))
    if not items.first:
        return replace(verdict, outcome="not comparable", reason="there are no items")
    if second is None:
        bad, known = (sum(value is None for value in values) for values in (items.second, items.first))
        reason = f"not finite: {bad} of {len(items.second)} items" if bad else "beyond the range of floats"
        if first is None and bad <= known:
            return replace(verdict, reason=f"{reason}; the baseline has no value either")
        return replace(verdict, outcome="newly failing", reason=reason)
    if first is None:
        return replace(verdict, outcome="better", reason="the baseline has no finite value")
    return verdict.by_size(second, items.direction, tolerance)


def _value(items: PairedItems, values: Sequence[float | None]) -> float | None:
    found = mean(values)
    if found is None or not items.is_log:
        return found
    try:
        return exp(found)
    except OverflowError:
        return None


def _change(judged: JudgedItems, end: float) -> float | None:
    """Converts an end of the interval of the items' mean difference to the unit of `MetricVerdict.change`."""
    first, relative = judged.verdict.baseline, judged.verdict.relative
    assert first is not None
    if not judged.items.is_log:
        return end / abs(first) if relative else end
    try:
        return expm1(end) if relative else first * expm1(end)
    except OverflowError:
        return None


__all__ = ["JudgedItems", "by_significance", "by_size"]
