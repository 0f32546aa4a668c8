"""Metrics computed from items: each formula is defined once, for measuring, verifying and pairing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Generic, Literal, TypeVar

from suite.results.records.items import (
    AnswerSet,
    AnswerText,
    ItemRow,
    RightAnswers,
    TaskOutcomes,
    WindowDivergence,
    WindowLosses,
)
from suite.results.records.record import Metric
from suite.results.statistics.perplexity import perplexity_from_nll
from suite.results.statistics.single import Estimate, Values, mean_share, mean_stderr, proportion

Better = Literal["higher", "lower"]
Direction = Literal["higher", "lower", "none"]
Source = TypeVar("Source", WindowLosses, WindowDivergence, TaskOutcomes, AnswerSet)


@dataclass(frozen=True)
class ItemMetric(Generic[Source]):
    """A metric that is computed from one value per item.

    Attributes:
        name: name in records.
        direction: whether higher or lower values are better.
        values: function that returns one value per item of a record's item data; None for items without one.
        estimate: function that computes the metric and its interval from the values.
        skips: whether items without a value are skipped; otherwise one such item leaves the metric without a
            value.
        compares: whether the metric compares a model with the dense one, and is absent without a dense model.
        uncompared: value of every item if there is no dense model.
        elsewhere: relative and absolute tolerance for a rerun on another machine, where rounding may change
            ties in a mask and last bits; None = the effect of a few items that change by one.
        since: first record schema that has the metric; older records may lack it.
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
        """The better direction; only for metrics whose `direction` is not `none`."""
        assert self.direction != "none"
        return self.direction

    @property
    def is_share(self) -> bool:
        """Whether the value of each item is a share, from 0 to 1."""
        return self.estimate in (mean_share, proportion)

    @property
    def is_log(self) -> bool:
        """Whether the value of each item is a logarithm, and the metric is exp of their mean."""
        return self.estimate is perplexity_from_nll

    def used(self, source: Source) -> list[float | None]:
        """Returns the values that enter the metric."""
        values = self.values(source)
        return [value for value in values if value is not None or not self.skips]

    def of(self, source: Source) -> Metric:
        """Computes the metric of these items in the form used in records."""
        return metric_of(self.name, source.protocol, self.estimate(self.used(source)), self.direction)

    def shows_comparison(self, source: Source) -> bool:
        """Whether the items prove that a dense model was available; False proves nothing."""
        return any(value != self.uncompared for value in self.values(source))


def _each(value: Callable[[AnswerText], float | None]) -> Callable[[AnswerSet], Sequence[float | None]]:
    return lambda given: [value(answer) for answer in given.answers]


def _right(
    values: Callable[[RightAnswers], Sequence[float | None]],
) -> Callable[[TaskOutcomes], Sequence[float | None]]:
    return lambda task: () if task.right_answers is None else values(task.right_answers)


LOSSES: tuple[ItemMetric[WindowLosses], ...] = (
    ItemMetric("perplexity", "lower", lambda losses: losses.nll, perplexity_from_nll, elsewhere=(0.005, 0.0)),
)
"""Metrics of the losses on one text."""

DIVERGENCES: tuple[ItemMetric[WindowDivergence], ...] = (
    # A mean divergence is small, so its relative error is larger.
    ItemMetric("kl_divergence", "lower", lambda found: found.kl, mean_stderr, elsewhere=(0.05, 0.005)),
    ItemMetric("top1_agreement", "higher", lambda found: found.agreement, mean_share, elsewhere=(0.0, 0.01)),
)
"""Metrics of the divergence from the dense model on one text."""

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
"""Metrics of the answers to a set of prompts."""

PRODUCTION: tuple[ItemMetric[TaskOutcomes], ...] = (
    ItemMetric(
        "production_accuracy",
        "higher",
        _right(lambda found: tuple(map(float, found.produced))),
        proportion,
        since=9,
    ),
    ItemMetric(
        "answer_rank",
        "lower",
        _right(lambda found: tuple(log(rank) for rank in found.ranks)),
        perplexity_from_nll,
        since=9,
    ),
    ItemMetric("answer_token_loss", "lower", _right(lambda found: found.losses), mean_stderr, since=9),
)
"""Metrics of the right answers to a task's questions, as a model itself would produce them."""


def item_metrics(
    metrics: Iterable[ItemMetric[Source]], source: Source, *, compared: bool = True
) -> list[Metric]:
    """Computes the metrics of the items of one text or prompt set, in the form used in records.

    Args:
        metrics: the metrics for this kind of items.
        source: the item data.
        compared: whether a dense model was available.
    """
    return [metric.of(source) for metric in metrics if compared or not metric.compares]


def metric_of(name: str, protocol: str, estimate: Estimate, direction: Direction) -> Metric:
    """Converts an estimate to a metric of a record."""
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
    """Returns the side-file rows of a text's windows, from their token digests and values."""
    return [
        ItemRow(protocol, metric, item, digest, None, None, value, n_tokens)
        for item, (digest, value) in enumerate(zip(digests, values, strict=True))
    ]


__all__ = [
    "ANSWERS",
    "DIVERGENCES",
    "LOSSES",
    "PRODUCTION",
    "Better",
    "Direction",
    "ItemMetric",
    "Source",
    "item_metrics",
    "metric_of",
    "window_rows",
]
