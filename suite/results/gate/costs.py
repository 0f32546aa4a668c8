"""Judges counts and costs by the size of the change only, because they are single numbers without items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import Literal

from scipy.stats import norm

from suite.results.gate.tolerances import Tolerance, Tolerances
from suite.results.gate.verdict import MetricVerdict
from suite.results.records.comparability import first_difference, machine_conditions
from suite.results.records.record import Metric, Record
from suite.results.statistics.metrics import Better
from suite.results.statistics.model_metrics import PRUNE_COSTS, SIZES, SPEEDS

COUNTS: dict[str, Better] = {"sparsity": "higher", **dict.fromkeys(SIZES, "lower")}
"""Metrics that are exact and equal on every machine. Sparsity must not fall, because a model that is pruned
less looks better by most other metrics."""

COSTS: dict[str, Better] = {
    **dict.fromkeys((name for name in PRUNE_COSTS if name != "own_prune_seconds"), "lower"),
    **dict.fromkeys(SPEEDS, "higher"),
}
"""Metrics that depend on the machine. Of the two prune times, only the one that does not depend on other
cells is judged."""


def judge_costs(baseline: Record, candidate: Record, tolerances: Tolerances) -> Iterator[MetricVerdict]:
    """Judges the counts and costs of one cell for which the baseline has a value."""
    # Costs from different classes of machines are not comparable.
    elsewhere = first_difference(machine_conditions(baseline), machine_conditions(candidate))
    for metric in baseline.metrics:
        if metric.value is None or metric.name not in COUNTS | COSTS:
            continue
        tolerance = tolerances.of(metric.name, metric.protocol)
        if tolerance.ignore:
            continue
        other = candidate.metric(metric.name, metric.protocol)
        if metric.name in COUNTS:
            yield _count(metric, other, tolerance)
        elif elsewhere:
            yield replace(_unjudged(metric, other, "cost"), reason=elsewhere)
        else:
            yield _cost(metric, other, _slowdown(baseline, candidate), tolerance)


def _count(one: Metric, other: Metric | None, tolerance: Tolerance) -> MetricVerdict:
    verdict = _unjudged(one, other, "count")
    if other is None:
        return replace(verdict, reason="the candidate did not measure it")
    if other.value is None:
        return replace(verdict, outcome="newly failing", reason=other.status)
    return verdict.by_size(other.value, COUNTS[one.name], tolerance)


def _cost(one: Metric, other: Metric | None, slowdown: float | None, tolerance: Tolerance) -> MetricVerdict:
    verdict = _unjudged(one, other, "cost")
    if other is None or other.value is None:
        status = "did not measure it" if other is None else f"has none: {other.status}"
        return replace(verdict, reason=f"the candidate {status}")
    scale = 1.0
    if slowdown is not None and one.name.endswith("_seconds"):
        scale = 1 / slowdown
    elif slowdown is not None and one.name.endswith("_per_second"):
        scale = slowdown
    raw = verdict.by_size(other.value, COSTS[one.name], tolerance)
    verdict = verdict.by_size(other.value * scale, COSTS[one.name], tolerance)
    if verdict.outcome != "same" and raw.outcome != verdict.outcome:
        # The reference speed is itself a single noisy measurement, so it must not decide alone.
        reason = f"beyond the tolerance only by the reference speed (x {scale:.2g})"
        return replace(verdict, outcome="same", reason=reason)
    if verdict.outcome != "same" and _within_noise(one, other, scale):
        return replace(verdict, outcome="same", reason="within the spread of its repeats")
    return verdict


def _slowdown(baseline: Record, candidate: Record) -> float | None:
    """Returns the baseline's reference speed divided by the candidate's; None if they are not comparable."""
    one, other = baseline.reference_speed, candidate.reference_speed
    if one is None or other is None or (one.batch_size, one.seqlen) != (other.batch_size, other.seqlen):
        return None
    if min(one.forward_tokens_per_second, other.forward_tokens_per_second) <= 0:
        return None
    return one.forward_tokens_per_second / other.forward_tokens_per_second


def _within_noise(one: Metric, other: Metric, scale: float) -> bool:
    """Whether the difference is within the 95 % noise of repeated measurements; False without repeats."""
    if one.value is None or one.stderr is None or other.value is None or other.stderr is None:
        return False
    spread = sqrt(one.stderr**2 + (other.stderr * scale) ** 2)
    return abs(other.value * scale - one.value) <= float(norm.ppf(0.975)) * spread


def _unjudged(one: Metric, other: Metric | None, kind: Literal["count", "cost"]) -> MetricVerdict:
    candidate = None if other is None else other.value
    return MetricVerdict(
        one.name, one.protocol, kind, "not comparable", baseline=one.value, candidate=candidate
    )


__all__ = ["COSTS", "COUNTS", "judge_costs"]
