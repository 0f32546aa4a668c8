"""Perplexities of one ranking: intervals, ratios to dense, and which models are statistically tied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from suite.results.records.record import Record
from suite.results.statistics.perplexity import paired_log_ratios, perplexities_from_nll

Mark = Literal["", "best", "tied", "only", "lowest"]

Losses = tuple[float | None, ...]
"""Losses of all windows, in nats per token."""


@dataclass(frozen=True)
class Ratio:
    """One perplexity divided by another on the same windows, with its paired 95 % interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Score:
    """A perplexity on one protocol."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    status: str
    """`ok`, or why there is no value."""
    to_dense: Ratio | None = None
    mark: Mark = ""
    """`best`: lowest in its ranking; `tied`: its paired interval to the best includes 1; `only`: the only one
    with a value; `lowest`: the best of several that have no windows to compare by.
    """

    @property
    def unmarked(self) -> Score:
        """The same score for a model that is not part of the ranking."""
        return replace(self, mark="")


def scores_of(records: Sequence[Record], protocol: str, dense: Record | None) -> list[Score]:
    """Computes one score per record from the windows of one protocol, marked by comparison with the best.

    Args:
        records: records of one model, pruned to one pattern.
        protocol: protocol of the perplexity.
        dense: the reference of the ratios; None for no ratios.
    """
    losses = [_losses(record, protocol) for record in records]
    measured = [i for i, nll in enumerate(losses) if nll is not None]
    windows = [nll for nll in losses if nll is not None]
    scores = [_without_windows(record, protocol) for record in records]
    ratios = _ratios(windows, None if dense is None else _losses(dense, protocol))
    for i, found, ratio in zip(measured, perplexities_from_nll(windows), ratios, strict=True):
        scores[i] = Score(found.value, found.low, found.high, found.n, found.status, ratio)
    for i, mark in _marks(scores, losses).items():
        scores[i] = replace(scores[i], mark=mark)
    return scores


def _marks(scores: Sequence[Score], losses: Sequence[Losses | None]) -> dict[int, Mark]:
    """Maps indices to marks: of the best, and of those that the windows do not distinguish from it."""
    values = {i: score.value for i, score in enumerate(scores) if score.value is not None}
    if not values:
        return {}
    best = min(values, key=lambda i: values[i])
    marks: dict[int, Mark] = {}
    others = [i for i in values if i != best and losses[i] is not None]
    ratios = _ratios([nll for i in others if (nll := losses[i]) is not None], losses[best])
    compared = {
        i: ratio.low for i, ratio in zip(others, ratios, strict=True) if ratio and ratio.low is not None
    }
    for i, low in compared.items():
        if low <= 1:
            marks[i] = "tied"
    marks[best] = "only" if len(values) == 1 else "best" if compared else "lowest"
    return marks


def _without_windows(record: Record, protocol: str) -> Score:
    """Returns a score that may have a value, but no windows for an interval or a paired comparison."""
    metric = record.metric("perplexity", protocol)
    if metric is None:
        return Score(None, None, None, 0, "not measured")
    return Score(metric.value, None, None, metric.n or 0, metric.status)


def _losses(record: Record, protocol: str) -> Losses | None:
    return next((w.nll for w in record.windows if w.protocol == protocol), None)


def _ratios(losses: Sequence[Losses], base: Losses | None) -> list[Ratio | None]:
    """Divides each perplexity by that of `base`; None if there is none."""
    if base is None or not losses:
        return [None for _ in losses]
    return [
        None if paired.value is None else Ratio(paired.value, paired.low, paired.high)
        for paired in paired_log_ratios(losses, base)
    ]


__all__ = ["Mark", "Ratio", "Score", "scores_of"]
