"""Metrics formed anew from the items behind them, by the functions that formed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isclose

from suite.results.records.record import Metric
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES, LOSSES, ItemMetric, Source
from suite.results.statistics.single import Estimate, mean_share, mean_stderr
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import kinds_of, members

RELATIVE = 1e-9
"""Of a number formed anew: another version of a library may sum in another order."""
_ROUNDING = 1e-13
"""Of the largest number of an estimate: what is left where its others cancel out to nearly 0."""


def check_metrics(subject: Subject) -> Iterator[Finding]:
    """What holds of every metric, whatever is behind it; and that something is."""
    record = subject.record
    kinds = kinds_of(record)
    seen = set()
    for metric in record.metrics:
        named = f"{metric.name} {metric.protocol}".strip()
        if (metric.name, metric.protocol) in seen:
            yield subject.problem("metrics", f"has {named} twice")
        seen.add((metric.name, metric.protocol))
        kind = kinds.get((metric.name, metric.protocol))
        if kind is None:
            yield subject.problem("metrics", f"has {named}, which nothing in the record is behind")
        elif kind == "group":
            yield from _group(subject, metric, named)
        elif kind == "speed":
            yield from _speed(subject, metric, named)
        if problem := _interval(metric):
            yield subject.problem("metrics", f"{named}: {problem}")


def _group(subject: Subject, metric: Metric, named: str) -> Iterator[Finding]:
    """Of a group's score: a mean of its tasks' scores, weighted or not; of which tasks is not known."""
    values = [member.value for member in members(metric, subject.record) if member.value is not None]
    if metric.value is not None:
        slack = RELATIVE * max(map(abs, values), default=0.0)
        if not values or not min(values) - slack <= metric.value <= max(values) + slack:
            yield subject.problem("metrics", f"{named} is {metric.value!r}, beyond the scores of all tasks")
    n_questions = sum(task.n for task in subject.record.tasks)
    if metric.n is None or metric.n > n_questions:
        yield subject.problem("metrics", f"{named} is of {metric.n} questions, and there are {n_questions}")
    if (metric.low, metric.high) != (None, None):
        yield subject.problem("metrics", f"{named} has an interval, and no questions of its own")
    yield subject.remark("metrics", f"{named} has no items of its own, so it was not formed anew")


def _speed(subject: Subject, metric: Metric, named: str) -> Iterator[Finding]:
    if metric.value is not None and not metric.value > 0:
        yield subject.problem("metrics", f"{named}: a rate is above 0, not {metric.value:g}")
    if metric.direction != "higher":
        yield subject.problem("metrics", f"{named}: direction is {metric.direction!r}, not 'higher'")


def check_perplexity(subject: Subject) -> Iterator[Finding]:
    """Perplexity from the windows' losses."""
    for losses in subject.record.windows:
        yield from _formed_anew(subject, "perplexity", LOSSES, losses, "its windows")
        if any(loss is not None and loss < 0 for loss in losses.nll):
            yield subject.problem("perplexity", f"{losses.protocol}: a window's loss is below 0")


def check_divergence(subject: Subject) -> Iterator[Finding]:
    """KL divergence and agreement from the windows'."""
    for found in subject.record.divergences:
        yield from _formed_anew(subject, "divergence", DIVERGENCES, found, "its windows")
        if any(share is not None and not 0 <= share <= 1 for share in found.agreement):
            yield subject.problem("divergence", f"{found.protocol}: an agreement is outside 0 to 1")


def check_answers(subject: Subject) -> Iterator[Finding]:
    """Counts and shares of the answers, and whether each answer is possible."""
    given = subject.record.answers
    assert given is not None
    answers = given.answers
    for answer in answers:
        if not 0 <= answer.n_tokens <= given.max_new_tokens:
            yield subject.problem(
                "answers",
                f"answer {answer.id!r} has {answer.n_tokens} tokens, of {given.max_new_tokens} allowed",
            )
        # It parts at its own length where the dense model's goes on.
        if answer.parted_at is not None and not 0 <= answer.parted_at <= answer.n_tokens:
            yield subject.problem(
                "answers", f"answer {answer.id!r} of {answer.n_tokens} tokens parts at {answer.parted_at}"
            )
        if answer.repetition is not None and not 0 <= answer.repetition <= 1:
            yield subject.problem("answers", f"answer {answer.id!r} has repetition {answer.repetition:g}")
    if len({answer.id for answer in answers}) < len(answers):
        yield subject.problem("answers", "two answers have the same id")
    yield from _formed_anew(subject, "answers", ANSWERS, given, "its answers")


def _formed_anew(
    subject: Subject, check: str, metrics: Sequence[ItemMetric[Source]], source: Source, called: str
) -> Iterator[Finding]:
    """The metrics of one text or one set of prompts, each against what its items make."""
    for metric in metrics:
        if subject.record.metric(metric.name, source.protocol) is None and (
            metric.since > subject.schema_version or (metric.compares and not metric.shows_comparison(source))
        ):
            continue
        values = metric.used(source)
        if metric.is_share and not all(value is None or 0 <= value <= 1 for value in values):
            continue  # the check of the items says so, and nothing can be formed of them
        # Earlier versions let the interval of a mean of shares leave [0, 1].
        earlier = mean_stderr(values) if metric.estimate is mean_share else None
        yield from compare(subject, check, metric.of(source), called, earlier=earlier)


def compare(
    subject: Subject,
    check: str,
    due: Metric,
    source: str,
    *,
    earlier: Estimate | None = None,
    relative: float = RELATIVE,
) -> Iterator[Finding]:
    """Holds the record's metric against what it should be.

    Args:
        subject: the record.
        check: whose finding it is.
        due: the metric, formed anew.
        source: what it was formed from, as a message calls it.
        earlier: what earlier versions formed instead, which stands as well; None where they formed the same.
        relative: how far numbers may be apart.
    """
    metric = subject.record.metric(due.name, due.protocol)
    named = f"{due.name} {due.protocol}".strip()
    if metric is None:
        yield subject.problem(check, f"{named} is missing, and {source} are there")
        return
    if metric.direction != due.direction:
        yield subject.problem(check, f"{named}: direction is {metric.direction!r}, not {due.direction!r}")
    if subject.is_migrated and metric.low is None and metric.high is None:  # its schema had no intervals
        due = due.model_copy(update={"low": None, "high": None})
        earlier = earlier and replace(earlier, low=None, high=None)
    wrong = differences(metric, due, source, relative)
    if wrong and earlier and not differences(metric, earlier, source, relative):
        return
    for difference in wrong:
        yield subject.problem(check, f"{named}: {difference}")


def differences(metric: Metric, due: Metric | Estimate, source: str, relative: float = RELATIVE) -> list[str]:
    """How a metric differs from what it should be by its source, a sentence each."""
    known = [number for number in (due.value, due.low, due.high) if number is not None]
    slack = _ROUNDING * max(map(abs, known), default=0.0)
    found = []
    for field in ("value", "stderr", "low", "high", "n", "status"):
        stored, expected = getattr(metric, field), getattr(due, field)
        if field in ("n", "status"):
            # Why a single number is missing stands there in the words of its time.
            is_same = stored == expected or (field == "status" and due.value is None)
        else:
            is_same = same(stored, expected, relative, slack)
        if not is_same:
            shown = ["missing" if value is None else repr(value) for value in (stored, expected)]
            found.append(f"{field} is {shown[0]}, by {source} {shown[1]}")
    return found


def same(stored: float | None, expected: float | None, relative: float, slack: float = 0.0) -> bool:
    """Whether two numbers are one but for so much of them, or both are missing."""
    if stored is None or expected is None:
        return stored is expected
    return isclose(stored, expected, rel_tol=relative, abs_tol=slack)


def _interval(metric: Metric) -> str | None:
    """What is impossible about a metric's error and interval; None if nothing is."""
    ends: Sequence[float | None] = (metric.stderr, metric.low, metric.high)
    if metric.value is None:
        return None if ends == (None, None, None) else "has an interval and no value"
    if metric.status != "ok":
        return f"has a value, and the status {metric.status!r}"
    if metric.stderr is not None and metric.stderr < 0:
        return f"stderr is {metric.stderr!r}, below 0"
    slack = RELATIVE * abs(metric.value)
    if metric.low is not None and metric.low > metric.value + slack:
        return f"low is {metric.low!r}, above the value {metric.value!r}"
    if metric.high is not None and metric.high < metric.value - slack:
        return f"high is {metric.high!r}, below the value {metric.value!r}"
    if metric.n is not None and metric.n < 1:
        return f"has a value of {metric.n} items"
    return None


__all__ = [
    "RELATIVE",
    "check_answers",
    "check_divergence",
    "check_metrics",
    "check_perplexity",
    "compare",
    "differences",
    "same",
]
