"""Counts and costs, judged by their size: they are single numbers, with no items to test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

from scipy.stats import norm

from suite.results.gate.tolerances import Tolerance, Tolerances
from suite.results.gate.verdict import MetricVerdict
from suite.results.records.record import Metric, Record

COUNTS: dict[str, Literal["higher", "lower"]] = {
    "sparsity": "higher",
    "checkpoint_bytes": "lower",
    "bitmask_bytes": "lower",
    "packed_bytes": "lower",
}
"""Exact, and the same on every machine. A pruner that prunes less than before looks better by the others."""

COSTS: dict[str, Literal["higher", "lower"]] = {
    "prune_seconds": "lower",
    "peak_host_bytes": "lower",
    "peak_device_bytes": "lower",
    "prune_energy_joules": "lower",
    "prefill_tokens_per_second": "higher",
    "generation_tokens_per_second": "higher",
    "sparse_prefill_tokens_per_second": "higher",
    "sparse_generation_tokens_per_second": "higher",
}
"""They belong to a machine."""


@dataclass(frozen=True)
class _Both:
    """One metric on both sides."""

    baseline: Metric
    candidate: Metric | None


def judge_costs(baseline: Record, candidate: Record, tolerances: Tolerances) -> Iterator[MetricVerdict]:
    """Judges the counts and costs of one cell that the baseline has a value of."""
    elsewhere = other_machine(baseline, candidate)
    for metric in baseline.metrics:
        if metric.value is None or metric.name not in COUNTS | COSTS:
            continue
        tolerance = tolerances.of(metric.name, metric.protocol)
        if tolerance.ignore:
            continue
        both = _Both(metric, candidate.metric(metric.name, metric.protocol))
        if metric.name in COUNTS:
            yield _count(both, tolerance)
        elif elsewhere:
            yield replace(_unjudged(both, "cost"), reason=elsewhere)
        else:
            yield _cost(both, _slowdown(baseline, candidate), tolerance)


def other_machine(baseline: Record, candidate: Record) -> str:
    """Why the machines of two records are of two classes, whose costs do not compare; empty if of one."""
    one, other = baseline.environment, candidate.environment
    for what, pair in {
        "device": (one.device, other.device),
        "processor": (one.processor, other.processor),
        "number of cores": (one.physical_cores, other.physical_cores),
        "placement": (baseline.placement, candidate.placement),
    }.items():
        if pair[0] != pair[1]:
            return f"another {what}: {pair[0]} and {pair[1]}"
    return ""


def _count(both: _Both, tolerance: Tolerance) -> MetricVerdict:
    verdict = _unjudged(both, "count")
    if both.candidate is None:
        return replace(verdict, reason="the candidate did not measure it")
    if both.candidate.value is None:
        return replace(verdict, outcome="newly failing", reason=both.candidate.status)
    return _by_size(verdict, both.candidate.value, COUNTS[both.baseline.name], tolerance)


def _cost(both: _Both, slowdown: float | None, tolerance: Tolerance) -> MetricVerdict:
    verdict = _unjudged(both, "cost")
    if both.candidate is None or both.candidate.value is None:
        status = "did not measure it" if both.candidate is None else f"has none: {both.candidate.status}"
        return replace(verdict, reason=f"the candidate {status}")
    name, scale = both.baseline.name, 1.0
    if slowdown is not None and name.endswith("_seconds"):
        scale = 1 / slowdown
    elif slowdown is not None and name.endswith("_per_second"):
        scale = slowdown
    raw = _by_size(verdict, both.candidate.value, COSTS[name], tolerance)
    verdict = _by_size(verdict, both.candidate.value * scale, COSTS[name], tolerance)
    if verdict.outcome != "same" and raw.outcome != verdict.outcome:
        # A floor is one measurement too.
        return replace(
            verdict, outcome="same", reason=f"beyond the tolerance only by the floor (x {scale:.2g})"
        )
    if verdict.outcome != "same" and _within_noise(both, scale):
        return replace(verdict, outcome="same", reason="within the spread of its repeats")
    return verdict


def _slowdown(baseline: Record, candidate: Record) -> float | None:
    """How much slower the machine itself was for the candidate, by the measured floors; None without two."""
    one, other = baseline.floor, candidate.floor
    if one is None or other is None or (one.batch_size, one.seqlen) != (other.batch_size, other.seqlen):
        return None
    if min(one.forward_tokens_per_second, other.forward_tokens_per_second) <= 0:
        return None
    return one.forward_tokens_per_second / other.forward_tokens_per_second


def _within_noise(both: _Both, scale: float) -> bool:
    """Whether the repeats of both, where there were any, spread too far to tell the two apart."""
    one, other = both.baseline, both.candidate
    if (
        one.value is None
        or one.stderr is None
        or other is None
        or other.value is None
        or other.stderr is None
    ):
        return False
    spread = sqrt(one.stderr**2 + (other.stderr * scale) ** 2)
    return abs(other.value * scale - one.value) <= float(norm.ppf(0.975)) * spread


def _unjudged(both: _Both, kind: Literal["count", "cost"]) -> MetricVerdict:
    metric = both.baseline
    candidate = both.candidate.value if both.candidate is not None else None
    return MetricVerdict(
        metric.name, metric.protocol, kind, "not comparable", baseline=metric.value, candidate=candidate
    )


def _by_size(
    verdict: MetricVerdict, value: float, direction: Literal["higher", "lower"], tolerance: Tolerance
) -> MetricVerdict:
    baseline = verdict.baseline
    assert baseline is not None
    difference = value - baseline
    relative = tolerance.relative is not None and baseline != 0
    verdict = replace(
        verdict,
        outcome="same",
        candidate=value,
        change=difference / abs(baseline) if relative else difference,
        relative=relative,
        tolerance=tolerance,
    )
    if abs(difference) <= tolerance.reach(baseline):
        return verdict
    return replace(verdict, outcome="better" if (difference > 0) == (direction == "higher") else "worse")


__all__ = ["COSTS", "COUNTS", "judge_costs", "other_machine"]
