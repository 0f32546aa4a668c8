"""Pairs the metrics that two records measured on the same items, or explains why they cannot be paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, TypeVar

from suite.results.records.comparability import first_difference, items_conditions
from suite.results.records.items import AnswerSet, TaskOutcomes, WindowDivergence, WindowLosses
from suite.results.records.record import Record
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES, LOSSES, PRODUCTION, Better, ItemMetric
from suite.results.statistics.paired import mcnemar, paired_bootstrap
from suite.results.statistics.perplexity import paired_log_ratio
from suite.results.statistics.single import PairedEstimate, proportion
from suite.results.statistics.task_items import right

Text = TypeVar("Text", WindowLosses, WindowDivergence)
Items = TypeVar("Items", WindowLosses, WindowDivergence, TaskOutcomes)
Values = tuple[float | None, ...]

N_RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedItems:
    """The per-item values of one metric in two records.

    Attributes:
        name: a metric of windows, the main metric of a task, or one of right answers or of answers.
        protocol: protocol of both.
        kind: kind of the items. A `question` is right (1) or wrong (0); a `graded` question, a `window` and
            an `answer` have any value.
        direction: whether higher or lower values are better.
        first: `[n]`, values of the first record; None for items without a finite value.
        second: `[n]`, values of the second record for the same items in the same order.
        reason: why the items cannot be paired; if empty, they can, and both have the same length.
        is_task: whether the metric is the main one of a task.
        is_log: whether the values are logarithms, and the metric is exp of their mean (`perplexity`).
    """

    name: str
    protocol: str
    kind: Literal["window", "question", "graded", "answer"]
    direction: Better
    first: Values = ()
    second: Values = ()
    reason: str = ""
    is_task: bool = False
    is_log: bool = False

    @property
    def fewest_p_value(self) -> float:
        """The lowest possible p-value for this number of items, reached if all change in one direction."""
        return min(1.0, 2.0 * 0.5 ** len(self.first))

    def difference(self) -> PairedEstimate:
        """Returns the mean of second minus first, with a two-sided p-value of no difference.

        Questions are tested by McNemar's exact test (without an interval), everything else by sign flips
        (`paired_bootstrap`). Both assume no distribution. For many items only a sample of the flips is
        tried. If none of them reaches the observed mean, the p-value is only known to be small; then the
        paired Student t test gives its size, but not below the lowest value that all flips could give.

        Raises:
            ValueError: the items cannot be paired.
        """
        if self.reason:
            raise ValueError(f"{self.name} {self.protocol} cannot be paired: {self.reason}")
        if self.kind == "question":
            return self._by_flips()
        found = paired_bootstrap(self.second, self.first, n_resamples=N_RESAMPLES)
        if found.p_value is None or found.p_value > 2.0 / (N_RESAMPLES + 1):
            return found
        student = paired_log_ratio(self.second, self.first).p_value
        if student is None:
            return found
        return replace(found, p_value=min(found.p_value, max(student, self.fewest_p_value)))

    def _by_flips(self) -> PairedEstimate:
        flips = mcnemar(self.first, self.second)
        value = None
        if flips.wrong_to_right is not None and flips.right_to_wrong is not None:
            value = (flips.wrong_to_right - flips.right_to_wrong) / flips.n
        return PairedEstimate(value, None, None, flips.p_value, flips.n, status=flips.status)


ItemValues = Callable[[str, str], Values | None]
"""Function of (protocol, metric) that returns the values in a record's side file in order, or None."""


def pair_items(
    first: Record, second: Record, *, first_items: ItemValues, second_items: ItemValues
) -> list[PairedItems]:
    """Pairs all metrics with per-item values that either of two finished records has.

    Args:
        first: the record to compare with: of a baseline, or of the dense model.
        second: the other record.
        first_items: reads the side file of the first record, for tasks that grade their answers.
        second_items: reads that of the second record.

    Returns:
        Metrics of texts, of tasks, of their right answers, and of answers to prompts; those that cannot be
        paired contain a reason.
    """
    return [
        *_texts(first, second),
        *_tasks(first, second, first_items, second_items),
        *_right_answers(first, second),
        *_answers(first, second),
    ]


def _texts(first: Record, second: Record) -> Iterator[PairedItems]:
    reasons = {}
    for protocol, a, b in _both(first.windows, second.windows):
        reasons[protocol] = _other(a, b)
        yield from _windows(LOSSES, protocol, reasons[protocol], a, b)
    for protocol, one, other in _both(first.divergences, second.divergences):
        reason = _missing(one, other) or reasons.get(protocol, "it is not known on which text")
        yield from _windows(DIVERGENCES, protocol, reason, one, other)


def _windows(
    metrics: Sequence[ItemMetric[Text]], protocol: str, reason: str, one: Text | None, other: Text | None
) -> Iterator[PairedItems]:
    for metric in metrics:
        items = PairedItems(
            metric.name, protocol, "window", metric.better, reason=reason, is_log=metric.is_log
        )
        if not reason and one is not None and other is not None:
            items = replace(items, first=tuple(metric.values(one)), second=tuple(metric.values(other)))
        yield items


def _tasks(
    first: Record, second: Record, first_items: ItemValues, second_items: ItemValues
) -> Iterator[PairedItems]:
    directions = {(m.name, m.protocol): m.direction for r in (first, second) for m in r.metrics}
    for protocol, one, other in _both(first.tasks, second.tasks):
        name = (one or other or first.tasks[0]).metric
        items = PairedItems(
            name,
            protocol,
            "question",
            "lower" if directions.get((name, protocol)) == "lower" else "higher",
            is_task=True,
        )
        if (reason := _other(one, other)) or one is None or other is None:
            yield replace(items, reason=reason)
        elif one.outcomes is not None and other.outcomes is not None:
            yield replace(items, first=right(one.outcomes), second=right(other.outcomes))
        else:
            grades, others = first_items(protocol, name), second_items(protocol, name)
            if grades is None or others is None or len(grades) != len(others):
                yield replace(items, reason="its answers are graded, and the grades of one side are missing")
            else:
                yield replace(items, kind="graded", first=grades, second=others)


def _right_answers(first: Record, second: Record) -> Iterator[PairedItems]:
    for protocol, one, other in _both(first.tasks, second.tasks):
        if all(task is None or task.right_answers is None for task in (one, other)):
            continue
        reason = _other(one, other)
        if one is not None and one.right_answers is None:
            reason = NOT_IN_BASELINE
        elif other is not None and other.right_answers is None:
            reason = NOT_IN_CANDIDATE
        for metric in PRODUCTION:
            kind: Literal["question", "graded"] = "question" if metric.estimate is proportion else "graded"
            items = PairedItems(
                metric.name, protocol, kind, metric.better, reason=reason, is_log=metric.is_log
            )
            if not reason and one is not None and other is not None:
                items = replace(items, first=tuple(metric.values(one)), second=tuple(metric.values(other)))
            yield items


def _answers(first: Record, second: Record) -> Iterator[PairedItems]:
    one, other = first.answers, second.answers
    if one is None and other is None:
        return
    found = one or other
    assert found is not None
    reason = _other(one, other)
    for metric in ANSWERS:
        if metric.direction == "none":
            continue
        if metric.compares and (first.cell.is_dense or second.cell.is_dense):
            continue  # the dense model's answers are not compared with anything
        kind: Literal["question", "answer"] = "question" if metric.estimate is proportion else "answer"
        items = PairedItems(metric.name, found.protocol, "answer", metric.better, reason=reason)
        if reason or one is None or other is None:
            yield items
            continue
        pairs = list(zip(metric.values(one), metric.values(other), strict=True))
        # An answer that is too short to repeat itself is left out; one without a finite likelihood is kept.
        short = metric.skips and metric.is_share
        pairs = [(a, b) for a, b in pairs if a is not None and not (short and b is None)]
        if pairs:
            ours, theirs = (tuple(pair[side] for pair in pairs) for side in (0, 1))
            yield replace(items, kind=kind, first=ours, second=theirs)
        elif short and any(value is not None for value in metric.values(one)):
            yield replace(items, kind=kind, reason="no answer is long enough in both")


def _other(
    first: WindowLosses | TaskOutcomes | AnswerSet | None,
    second: WindowLosses | TaskOutcomes | AnswerSet | None,
) -> str:
    """Describes why two sets of windows, questions or answers have different items; empty if they do not."""
    if first is None or second is None:
        return _missing(first, second)
    return first_difference(items_conditions(first), items_conditions(second))


NOT_IN_BASELINE = "the baseline did not measure it"
NOT_IN_CANDIDATE = "the candidate did not measure it"


def _missing(first: object, second: object) -> str:
    if first is None:
        return NOT_IN_BASELINE
    return NOT_IN_CANDIDATE if second is None else ""


def _both(
    first: Sequence[Items], second: Sequence[Items]
) -> Iterator[tuple[str, Items | None, Items | None]]:
    """Yields each protocol that either side has, with the items of both sides."""
    ours: dict[str, Items] = {item.protocol: item for item in first}
    theirs: dict[str, Items] = {item.protocol: item for item in second}
    for protocol in dict.fromkeys([*ours, *theirs]):
        yield protocol, ours.get(protocol), theirs.get(protocol)


def mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of all values; None if a value is missing, there are none, or it is not finite."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    found = sum(known) / len(known)
    return found if isfinite(found) else None


__all__ = [
    "NOT_IN_BASELINE",
    "ItemValues",
    "PairedItems",
    "mean",
    "pair_items",
]
