"""The verdict of a gate as lines of text and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from suite.results.gate import CellVerdict, MetricVerdict, Verdict
from suite.results.gate.wording import describe, summary
from suite.results.verification import one_line


def as_lines(verdict: Verdict, *, everything: bool = False) -> Iterator[str]:
    """Yields one line per cell, below it its metrics that changed or were not comparable, last the outcome.

    Args:
        verdict: the verdict of the gate.
        everything: whether to include metrics that stayed the same.
    """
    for cell in verdict.cells:
        reason = f": {cell.reason}" if cell.reason else ""
        yield f"{cell.outcome:<15} {one_line(f'{cell.label}{_masks(cell)}{reason}')}"
        shown = [m for m in cell.metrics if everything or _is_news(m)]
        name = max((len(f"{m.name} {m.protocol}") for m in shown), default=0)
        for metric in shown:
            label = one_line(f"{metric.name} {metric.protocol}")
            yield f"    {metric.outcome:<15} {label:<{name}}  {one_line(describe(metric))}"
    for new in verdict.new:
        yield f"{'new':<15} {one_line(new.label)}: the baseline has no such cell"
    yield from (f"note: {one_line(remark)}" for remark in verdict.remarks)
    yield summary(verdict)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Returns the whole verdict as JSON values."""
    return {
        "exit_code": verdict.exit_code,
        "baseline": verdict.baseline,
        "candidate": verdict.candidate,
        "tolerances": verdict.tolerances,
        "significance": verdict.significance,
        "counts": verdict.counts,
        "remarks": verdict.remarks,
        "cells": [_cell(cell) for cell in verdict.cells],
        "new": [{"label": cell.label, "digest": cell.digest} for cell in verdict.new],
    }


def _is_news(metric: MetricVerdict) -> bool:
    if metric.outcome == "same":
        return bool(metric.reason) and metric.kind == "quality"
    return metric.counts


def _masks(cell: CellVerdict) -> str:
    return "" if cell.same_masks is None else f" ({'same' if cell.same_masks else 'other'} masks)"


def _cell(cell: CellVerdict) -> dict[str, Any]:
    return {
        "label": cell.label,
        "digest": cell.cell.digest,
        "outcome": cell.outcome,
        "reason": cell.reason,
        "same_masks": cell.same_masks,
        "metrics": [_metric(metric) for metric in cell.metrics],
    }


def _metric(metric: MetricVerdict) -> dict[str, Any]:
    tolerance = metric.tolerance and metric.tolerance.model_dump(include={"relative", "absolute"})
    return {**asdict(metric), "tolerance": tolerance}


__all__ = ["as_json", "as_lines"]
