"""Two records side by side: what both measured on the same items, and why not where they did not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, TypeVar

from suite.results.records.items import AnswerSet, TaskOutcomes, WindowDivergence, WindowLosses
from suite.results.records.record import Record
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES
from suite.results.statistics.paired import PairedDifference, mcnemar, paired_bootstrap
from suite.results.statistics.perplexity import paired_log_ratio
from suite.results.statistics.single import proportion

Items = TypeVar("Items", WindowLosses, WindowDivergence, TaskOutcomes)
Values = tuple[float | None, ...]

PERPLEXITY = "perplexity"
N_RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedItems:
    """One metric of two records.

    Attributes:
        name: `perplexity`, `kl_divergence`, `top1_agreement`, a task's main metric, or one of answers.
        protocol: of both.
        kind: what an item is. A `window` of `perplexity` has a loss in nats, and their mean is a log
            perplexity; a `question` is right (1) or wrong (0); a `graded` question and an `answer` have any
            value.
        direction: which way is better.
        first: `[n]`, the first record's values; None where an item has no finite one.
        second: `[n]`, the second record's, of the same items in the same order.
        reason: why the items cannot be paired; empty where they can, and then both are as long.
        is_task: whether the items are a task's questions.
    """

    name: str
    protocol: str
    kind: Literal["window", "question", "graded", "answer"]
    direction: Literal["higher", "lower"]
    first: Values = ()
    second: Values = ()
    reason: str = ""
    is_task: bool = False

    @property
    def fewest_p_value(self) -> float:
        """The lowest p-value that so many items can have, if all of them move one way."""
        return min(1.0, 2.0 * 0.5 ** len(self.first))

    def difference(self) -> PairedDifference:
        """The mean of second minus first, with a two-sided p-value of no difference.

        Right and wrong is tested by McNemar's exact test (without an interval), everything else by sign flips
        (`paired_bootstrap`). Both assume no distribution. Of many items not all flips are tried, and where
        none of those tried moves the mean as far, the p-value is only known to be small: the paired Student t
        test then says how small, but never less than all flips could give.

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

    def _by_flips(self) -> PairedDifference:
        flips = mcnemar(self.first, self.second)
        value = None
        if flips.wrong_to_right is not None and flips.right_to_wrong is not None:
            value = (flips.wrong_to_right - flips.right_to_wrong) / flips.n
        return PairedDifference(value, None, None, flips.p_value, flips.n, status=flips.status)


ItemValues = Callable[[str, str], Values | None]
"""(protocol, metric) -> the values of a record's side file, in order; None where it has none."""


def whole_difference(first: Record, second: Record) -> str | None:
    """What makes the quality of two finished records incomparable as a whole; None if nothing does."""
    one, other = first.model, second.model
    if one is None or other is None:
        return "it is not known which model was measured"
    if one.dtype != other.dtype:
        return f"another dtype: {one.dtype} and {other.dtype}"
    if one.weight_digest != other.weight_digest:
        names = [f"{model.name} ({model.weight_digest[:12]})" for model in (one, other)]
        return f"another dense model: {' and '.join(names)}"
    threads = first.environment.threads, second.environment.threads
    if threads[0] != threads[1]:
        return f"another number of threads: {threads[0]} and {threads[1]}"
    return None


def pair_items(
    first: Record, second: Record, *, first_items: ItemValues, second_items: ItemValues
) -> list[PairedItems]:
    """Everything that either of two finished records measured item by item.

    Args:
        first: the record that is compared with: a baseline's, or the dense model's.
        second: the other one.
        first_items: reads the first one's side file, for tasks that grade their answers.
        second_items: likewise.

    Returns:
        Texts, then tasks, then answers; what cannot be paired says why.
    """
    return [
        *_windows(first, second),
        *_divergences(first, second),
        *_tasks(first, second, first_items, second_items),
        *_answers(first, second),
    ]


def _windows(first: Record, second: Record) -> Iterator[PairedItems]:
    for protocol, one, other in _both(first.windows, second.windows):
        if reason := _other_windows(one, other):
            yield PairedItems(PERPLEXITY, protocol, "window", "lower", reason=reason)
        elif one is not None and other is not None:
            yield PairedItems(PERPLEXITY, protocol, "window", "lower", one.nll, other.nll)


def _divergences(first: Record, second: Record) -> Iterator[PairedItems]:
    texts = {protocol: _other_windows(a, b) for protocol, a, b in _both(first.windows, second.windows)}
    for protocol, one, other in _both(first.divergences, second.divergences):
        reason = _missing(one, other) or texts.get(protocol, "it is not known on which text")
        for metric in DIVERGENCES:
            items = PairedItems(metric.name, protocol, "window", metric.better, reason=reason)
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
        if one is None or other is None or (reason := _other_questions(one, other)):
            yield replace(items, reason=_missing(one, other) or reason)
        elif one.outcomes is not None and other.outcomes is not None:
            yield replace(items, first=_right(one.outcomes), second=_right(other.outcomes))
        else:
            grades, others = first_items(protocol, name), second_items(protocol, name)
            if grades is None or others is None or len(grades) != len(others):
                yield replace(items, reason="its answers are graded, and the grades of one side are missing")
            else:
                yield replace(items, kind="graded", first=grades, second=others)


def _right(outcomes: str) -> Values:
    return tuple(float(outcome) for outcome in outcomes)


def _answers(first: Record, second: Record) -> Iterator[PairedItems]:
    one, other = first.answers, second.answers
    if one is None and other is None:
        return
    found = one or other
    assert found is not None
    reason = _other_prompts(one, other)
    for metric in ANSWERS:
        if metric.direction == "none":
            continue
        if metric.compares and (first.cell.is_dense or second.cell.is_dense):
            continue  # nothing to hold its answers against
        kind: Literal["question", "answer"] = "question" if metric.estimate is proportion else "answer"
        items = PairedItems(metric.name, found.protocol, "answer", metric.better, reason=reason)
        if reason or one is None or other is None:
            yield items
            continue
        pairs = list(zip(metric.values(one), metric.values(other), strict=True))
        # An answer too short to repeat itself tells nothing; one that is no longer likely at all tells much.
        short = metric.skips and metric.is_share
        pairs = [(a, b) for a, b in pairs if a is not None and not (short and b is None)]
        if pairs:
            ours, theirs = (tuple(pair[side] for pair in pairs) for side in (0, 1))
            yield replace(items, kind=kind, first=ours, second=theirs)
        elif short and any(value is not None for value in metric.values(one)):
            yield replace(items, kind=kind, reason="no answer is long enough in both")


def _other_windows(first: WindowLosses | None, second: WindowLosses | None) -> str:
    """Why two window lists are not of the same items; empty where they are."""
    if first is None or second is None:
        return _missing(first, second)
    return _named(
        {
            "corpus": (first.corpus_digest, second.corpus_digest),
            "token limit": (first.limit, second.limit),
            "number of windows": (len(first.nll), len(second.nll)),
        }
    )


def _other_questions(first: TaskOutcomes, second: TaskOutcomes) -> str:
    """Why two lists of outcomes are not of the same questions; empty where they are."""
    return _named(
        {
            "task version": (first.version, second.version),
            "limit": (first.limit, second.limit),
            "metric": (first.metric, second.metric),
            "questions": (first.items_digest, second.items_digest),
        }
    )


def _other_prompts(first: AnswerSet | None, second: AnswerSet | None) -> str:
    """Why two sets of answers are not to the same prompts; empty where they are."""
    if first is None or second is None:
        return _missing(first, second)
    return _named(
        {
            "prompts": (first.prompts_digest, second.prompts_digest),
            "length of answers": (first.max_new_tokens, second.max_new_tokens),
            "chat template": (first.chat_template, second.chat_template),
            "number of prompts answered at once": (first.batch_size, second.batch_size),
            "number of answers": (len(first.answers), len(second.answers)),
        }
    )


def _named(differing: Mapping[str, tuple[object, object]]) -> str:
    """The first thing that differs, with both values where these say something."""
    for what, (one, other) in differing.items():
        if one != other:
            if what in ("corpus", "questions", "prompts"):  # digests say nothing to a reader
                return f"another {what}" if what == "corpus" else f"other {what}"
            return f"another {what}: {one} and {other}"
    return ""


NOT_IN_BASELINE = "the baseline did not measure it"


def _missing(first: object, second: object) -> str:
    if first is None:
        return NOT_IN_BASELINE
    return "the candidate did not measure it" if second is None else ""


def _both(
    first: Sequence[Items], second: Sequence[Items]
) -> Iterator[tuple[str, Items | None, Items | None]]:
    """Each protocol that one of the two has, with both sides."""
    ours: dict[str, Items] = {item.protocol: item for item in first}
    theirs: dict[str, Items] = {item.protocol: item for item in second}
    for protocol in dict.fromkeys([*ours, *theirs]):
        yield protocol, ours.get(protocol), theirs.get(protocol)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of all values; None where one of them is missing, or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    found = sum(known) / len(known)
    return found if isfinite(found) else None


__all__ = [
    "NOT_IN_BASELINE",
    "PERPLEXITY",
    "ItemValues",
    "PairedItems",
    "mean",
    "pair_items",
    "whole_difference",
]
