"""Recomputes metrics from their items, with the functions that originally computed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isclose

from suite.results.records.record import Metric
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES, LOSSES, PRODUCTION, ItemMetric, Source
from suite.results.statistics.single import Estimate, mean_share, mean_stderr
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import kinds_of, members

RELATIVE = 1e-9
"""Relative tolerance of a recomputed number; other versions of a library may sum in another order."""
_ROUNDING = 1e-13
"""Tolerance as a share of the largest number of an estimate, for numbers that cancel out to nearly 0."""


def check_metrics(subject: Subject) -> Iterator[Finding]:
    """Checks what must be true of every metric, and that the record contains the data it is based on."""
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
    """Checks the score of a group: a mean, weighted or not, of scores of tasks that are not known."""
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
    """Checks perplexities against the losses of the windows."""
    for losses in subject.record.windows:
        yield from _recomputed(subject, "perplexity", LOSSES, losses, "its windows")
        if any(loss is not None and loss < 0 for loss in losses.nll):
            yield subject.problem("perplexity", f"{losses.protocol}: a window's loss is below 0")


def check_divergence(subject: Subject) -> Iterator[Finding]:
    """Checks KL divergence and agreement against the values of the windows."""
    for found in subject.record.divergences:
        yield from _recomputed(subject, "divergence", DIVERGENCES, found, "its windows")
        if any(share is not None and not 0 <= share <= 1 for share in found.agreement):
            yield subject.problem("divergence", f"{found.protocol}: an agreement is outside 0 to 1")


def check_answers(subject: Subject) -> Iterator[Finding]:
    """Checks counts and shares against the answers, and whether each answer is possible."""
    given = subject.record.answers
    assert given is not None
    answers = given.answers
    for answer in answers:
        if not 0 <= answer.n_tokens <= given.max_new_tokens:
            yield subject.problem(
                "answers",
                f"answer {answer.id!r} has {answer.n_tokens} tokens, of {given.max_new_tokens} allowed",
            )
        # If the dense model's answer is a continuation of this one, they differ at the length of this one.
        if answer.parted_at is not None and not 0 <= answer.parted_at <= answer.n_tokens:
            yield subject.problem(
                "answers", f"answer {answer.id!r} of {answer.n_tokens} tokens parts at {answer.parted_at}"
            )
        if answer.repetition is not None and not 0 <= answer.repetition <= 1:
            yield subject.problem("answers", f"answer {answer.id!r} has repetition {answer.repetition:g}")
    if len({answer.id for answer in answers}) < len(answers):
        yield subject.problem("answers", "two answers have the same id")
    yield from _recomputed(subject, "answers", ANSWERS, given, "its answers")


def check_production(subject: Subject) -> Iterator[Finding]:
    """Checks the metrics of right answers against their items, and whether the items are possible."""
    for task in subject.record.tasks:
        answers = task.right_answers
        if answers is None:
            continue
        lengths = {len(answers.produced), len(answers.ranks), len(answers.losses)}
        if lengths != {task.n} or set(answers.produced) - {"0", "1"}:
            yield subject.problem("production", f"{task.protocol}: its right answers are not {task.n}")
            continue
        if any(rank < 1 for rank in answers.ranks):
            yield subject.problem("production", f"{task.protocol}: a right answer has a rank below 1")
            continue
        if any(loss is not None and loss < 0 for loss in answers.losses):
            yield subject.problem("production", f"{task.protocol}: the loss of a right answer is below 0")
        pairs = zip(answers.produced, answers.ranks, strict=True)
        if any(produced == "1" and rank != 1 for produced, rank in pairs):
            yield subject.problem("production", f"{task.protocol}: a produced answer has a rank above 1")
        yield from _recomputed(subject, "production", PRODUCTION, task, "its right answers")


def _recomputed(
    subject: Subject, check: str, metrics: Sequence[ItemMetric[Source]], source: Source, called: str
) -> Iterator[Finding]:
    """Compares the metrics of one text or prompt set with those recomputed from the items."""
    for metric in metrics:
        if subject.record.metric(metric.name, source.protocol) is None and (
            metric.since > subject.schema_version or (metric.compares and not metric.shows_comparison(source))
        ):
            continue
        values = metric.used(source)
        if metric.is_share and not all(value is None or 0 <= value <= 1 for value in values):
            continue  # reported by the check of the items; nothing can be computed from these values
        # In earlier versions, the interval of a mean of shares could exceed [0, 1].
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
    """Compares a metric of the record with its expected value.

    Args:
        subject: the record.
        check: name of the check that reports the finding.
        due: the recomputed metric.
        source: name of the data that it was computed from, for messages.
        earlier: the estimate of earlier versions, which is accepted too; None if it is the same.
        relative: relative tolerance for numbers.
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
    """Describes how a metric differs from its expected value, one sentence per difference."""
    known = [number for number in (due.value, due.low, due.high) if number is not None]
    slack = _ROUNDING * max(map(abs, known), default=0.0)
    found = []
    for field in ("value", "stderr", "low", "high", "n", "status"):
        stored, expected = getattr(metric, field), getattr(due, field)
        if field in ("n", "status"):
            # The wording of a status that explains a missing value may differ between versions.
            is_same = stored == expected or (field == "status" and due.value is None)
        else:
            is_same = same(stored, expected, relative, slack)
        if not is_same:
            shown = ["missing" if value is None else repr(value) for value in (stored, expected)]
            found.append(f"{field} is {shown[0]}, by {source} {shown[1]}")
    return found


def same(stored: float | None, expected: float | None, relative: float, slack: float = 0.0) -> bool:
    """Whether two numbers are equal within the tolerances, or both are missing."""
    if stored is None or expected is None:
        return stored is expected
    return isclose(stored, expected, rel_tol=relative, abs_tol=slack)


def _interval(metric: Metric) -> str | None:
    """Describes an impossible error or interval of a metric; None if they are possible."""
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
    "check_production",
    "compare",
    "differences",
    "same",
]
