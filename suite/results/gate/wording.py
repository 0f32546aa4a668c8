"""Formats a verdict of the gate as text."""

from __future__ import annotations

from suite.results.gate.tolerances import Tolerance
from suite.results.gate.verdict import MetricVerdict, Verdict
from suite.results.wording import number

_ENDS = {
    0: "no regression",
    1: "a regression was found",
    3: "no regression was found, but not everything could be compared",
}


def summary(verdict: Verdict) -> str:
    """Returns the outcome in one line."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in verdict.counts.items())
    cells = f"{len(verdict.cells)} cell{'' if len(verdict.cells) == 1 else 's'}"
    return f"{_ENDS[verdict.exit_code]}: {counts} in {cells}"


def describe(metric: MetricVerdict) -> str:
    """Formats both values, the change with its interval and p-value, the tolerance, and the reason."""
    values = f"{number(metric.baseline)} → {number(metric.candidate)}"
    parts = [values if metric.baseline is not None or metric.candidate is not None else ""]
    if metric.change is not None:
        change = change_of(metric)
        interval = interval_of(metric)
        parts.append(f"{change} ({interval})" if interval else change)
    if metric.p_value is not None:
        parts.append(probability(metric.p_value))
    if metric.outcome in ("worse", "better") and metric.tolerance is not None:
        parts.append(f"tolerance {tolerance_of(metric.tolerance)}")
    if metric.reason:
        parts.append(metric.reason)
    return ", ".join(part for part in parts if part)


def change_of(metric: MetricVerdict) -> str:
    """Formats the change: `+2.7 %`, or `-0.05` if it is not relative; empty if there is none."""
    return "" if metric.change is None else _signed(metric.change, metric.relative)


def interval_of(metric: MetricVerdict) -> str:
    """Formats the interval of the change: `+1.4 % to +4 %`; empty if there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{_signed(metric.low, metric.relative)} to {_signed(metric.high, metric.relative)}"


def tolerance_of(tolerance: Tolerance) -> str:
    """Formats a tolerance: `1 %`, `0.02`, or `50 %, at least 2`."""
    relative = None if tolerance.relative is None else f"{100 * tolerance.relative:.4g} %"
    absolute = None if tolerance.absolute is None else f"{tolerance.absolute:.4g}"
    if relative and absolute:
        return f"{relative}, at least {absolute}"
    return relative or absolute or ""


def probability(p_value: float) -> str:
    """Formats a p-value: `p = 0.012`, `p < 0.001`."""
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def _signed(value: float, relative: bool) -> str:
    return f"{100 * value:+.3g} %" if relative else f"{value:+.3g}"


__all__ = ["change_of", "describe", "interval_of", "probability", "summary", "tolerance_of"]
