"""Metrics of items: each formula once, by which numbers are measured, verified and paired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from suite.results.records.items import AnswerSet, AnswerText, ItemRow, WindowDivergence, WindowLosses
from suite.results.records.record import Metric
from suite.results.statistics.perplexity import perplexity_from_nll
from suite.results.statistics.single import Estimate, Values, mean_share, mean_stderr, proportion

Better = Literal["higher", "lower"]
Direction = Literal["higher", "lower", "none"]
Source = TypeVar("Source", WindowLosses, WindowDivergence, AnswerSet)


@dataclass(frozen=True)
class ItemMetric(Generic[Source]):
    """A metric that is formed of one value for each item.

    Attributes:
        name: as records have it.
        direction: which way is better.
        values: what a record holds -> a value for each item; None where an item has none.
        estimate: the values -> the metric with its interval.
        skips: whether items without a value are left out; else one of them leaves the metric without a value.
        compares: whether it holds a model against the dense one, so that there is none without a dense model.
        uncompared: what every item's value is without a dense model.
        elsewhere: how far, relative and absolute, it may be from the same run on another machine, where other
            roundings move ties of a mask and last bits; None = as far as a few items moved by one.
        since: the first schema of records that have it; older ones may lack it.
    """

    name: str
    direction: Direction
    values: Callable[[Source], Sequence[float | None]]
    estimate: Callable[[Values], Estimate]
    skips: bool = False
    compares: bool = False
    uncompared: float | None = None
    elsewhere: tuple[float, float] | None = None
    since: int = 1

    @property
    def better(self) -> Better:
        """Which way is better, of a metric that can be judged."""
        assert self.direction != "none"
        return self.direction

    @property
    def is_share(self) -> bool:
        """Whether each item's value is a share, from 0 to 1."""
        return self.estimate in (mean_share, proportion)

    def used(self, source: Source) -> list[float | None]:
        """The values that it is formed of."""
        values = self.values(source)
        return [value for value in values if value is not None or not self.skips]

    def of(self, source: Source) -> Metric:
        """The metric of these items, as a record has it."""
        return metric_of(self.name, source.protocol, self.estimate(self.used(source)), self.direction)

    def shows_comparison(self, source: Source) -> bool:
        """Whether the items tell that a dense model was at hand; if not, there may have been one."""
        return any(value != self.uncompared for value in self.values(source))


def _each(value: Callable[[AnswerText], float | None]) -> Callable[[AnswerSet], Sequence[float | None]]:
    return lambda given: [value(answer) for answer in given.answers]


LOSSES: tuple[ItemMetric[WindowLosses], ...] = (
    ItemMetric("perplexity", "lower", lambda losses: losses.nll, perplexity_from_nll, elsewhere=(0.005, 0.0)),
)
"""Of the losses on one text."""

DIVERGENCES: tuple[ItemMetric[WindowDivergence], ...] = (
    # A mean divergence is small, and so its relative error larger.
    ItemMetric("kl_divergence", "lower", lambda found: found.kl, mean_stderr, elsewhere=(0.05, 0.005)),
    ItemMetric("top1_agreement", "higher", lambda found: found.agreement, mean_share, elsewhere=(0.0, 0.01)),
)
"""Of the divergence from the dense model on one text."""

ANSWERS: tuple[ItemMetric[AnswerSet], ...] = (
    ItemMetric("answer_tokens", "none", _each(lambda answer: answer.n_tokens), mean_stderr),
    ItemMetric("answer_repetition", "lower", _each(lambda answer: answer.repetition), mean_share, skips=True),
    ItemMetric(
        "answers_as_dense",
        "higher",
        _each(lambda answer: float(answer.parted_at is None)),
        proportion,
        compares=True,
        uncompared=1.0,
    ),
    ItemMetric(
        "answer_dense_nll",
        "lower",
        _each(lambda answer: answer.dense_nll),
        mean_stderr,
        skips=True,
        compares=True,
    ),
    ItemMetric("answers_ended", "none", _each(lambda answer: float(answer.ended)), proportion, since=6),
)
"""Of the answers to a set of prompts."""


def item_metrics(
    metrics: Iterable[ItemMetric[Source]], source: Source, *, compared: bool = True
) -> list[Metric]:
    """The metrics of one text's or one prompt set's items, as a record has them.

    Args:
        metrics: those of this kind of items.
        source: what holds the items.
        compared: whether a dense model was at hand.
    """
    return [metric.of(source) for metric in metrics if compared or not metric.compares]


def metric_of(name: str, protocol: str, estimate: Estimate, direction: Direction) -> Metric:
    """An estimate as a record's metric."""
    return Metric(
        name=name,
        protocol=protocol,
        value=estimate.value,
        stderr=estimate.stderr,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        direction=direction,
        status=estimate.status,
    )


def window_rows(
    protocol: str, metric: str, digests: Sequence[str], values: Sequence[float | None], n_tokens: int | None
) -> list[ItemRow]:
    """The rows of a text's windows in a side file, from the digests of their tokens and their values."""
    return [
        ItemRow(protocol, metric, item, digest, None, None, value, n_tokens)
        for item, (digest, value) in enumerate(zip(digests, values, strict=True))
    ]


__all__ = [
    "ANSWERS",
    "DIVERGENCES",
    "LOSSES",
    "Better",
    "Direction",
    "ItemMetric",
    "Source",
    "item_metrics",
    "metric_of",
    "window_rows",
]
