"""Recomputes the scores of tasks from their questions, and flips from the outcomes of two records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isclose

from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Metric, Record
from suite.results.statistics.metrics import metric_of
from suite.results.statistics.single import Estimate, mean_stderr, proportion, score_mean
from suite.results.statistics.task_items import FLIPS, flip_metrics, right, score_estimate
from suite.results.verification.arithmetic import compare, differences
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import kinds_of
from suite.results.verification.rerun_comparison import same_machine_and_code

_LOST, _GAINED = (name for name, _ in FLIPS)


def check_tasks(subject: Subject) -> Iterator[Finding]:
    """Checks every score against its questions."""
    kinds = kinds_of(subject.record)
    for task in subject.record.tasks:
        if problem := _shape(task):
            yield subject.problem("tasks", f"{task.protocol}: {problem}")
            continue  # nothing can be recomputed from it
        scores = [
            metric
            for metric in subject.record.metrics
            if metric.protocol == task.protocol and kinds.get((metric.name, metric.protocol)) == "tasks"
        ]
        if task.metric not in {score.name for score in scores}:
            yield subject.problem(
                "tasks", f"{task.metric} {task.protocol} is missing, and its questions are there"
            )
        for score in scores:
            yield from _check_score(subject, task, score)


def check_flips(subject: Subject) -> Iterator[Finding]:
    """Checks the flips of every task: possible counts, their intervals, and agreement with dense records."""
    record = subject.record
    tasks = {task.protocol: task for task in record.tasks}
    flipped = dict.fromkeys(metric.protocol for metric in record.metrics if metric.name in (_LOST, _GAINED))
    for protocol in flipped:
        task = tasks.get(protocol)
        if task is None or (task.outcomes is not None and _shape(task)):
            continue  # reported by the checks `metrics` or `tasks`
        if task.outcomes is None:
            yield subject.problem("flips", f"{protocol}: flips of a task without outcomes")
            continue
        found = []
        for name, ended in ((_LOST, "0"), (_GAINED, "1")):
            metric = record.metric(name, protocol)
            if metric is None:
                found.append(f"{name} {protocol} is missing")
            else:
                wrong = _impossible(metric, task.n, task.outcomes.count(ended))
                found += [f"{name} {protocol}: {message}" for message in wrong]
        yield from (subject.problem("flips", message) for message in found)
        if not found:  # otherwise the comparison with dense records would only repeat the findings
            yield from _against_dense(subject, task)


def _check_score(subject: Subject, task: TaskOutcomes, score: Metric) -> Iterator[Finding]:
    values = subject.values(task.protocol, score.name)
    if values is None and score.name == task.metric and task.outcomes is not None:
        values = list(right(task.outcomes))
    named = f"{score.name} {score.protocol}"
    if values is None:
        if subject.items is not None:
            # lm-eval computes every score from those of the questions, which are all stored.
            yield subject.problem("tasks", f"{named} has no items in the side file")
        else:
            yield subject.remark("tasks", f"{named} has no items, so it was not formed anew")
        return
    if subject.items is not None and len(subject.values(task.protocol, task.metric) or ()) != task.n:
        return  # reported by the check `items`
    values += [None] * (task.n - len(values))
    due, mean = score_estimate(score.name, score.value, score.stderr, values), score_mean(score.name, values)
    are_shares = all(value in (0.0, 1.0) for value in values)
    if due == mean or are_shares or _has_error_of(score, mean):
        # In earlier versions, the interval of graded shares could exceed [0, 1].
        due, earlier = mean, None if are_shares else mean_stderr(values)
    else:
        # Some scores of lm-eval are not means (F1, a perplexity); these are taken from the record unchecked.
        due, earlier = replace(due, stderr=score.stderr, status=score.status), None
        yield subject.remark("tasks", f"{named} is no mean of its items, so it was not formed anew")
    metric = metric_of(score.name, score.protocol, due, score.direction)
    yield from compare(subject, "tasks", metric, "its items", earlier=earlier)


def _has_error_of(score: Metric, mean: Estimate) -> bool:
    """Whether a score that is not the mean of its items is stored like one.

    Only means have an interval, and lm-eval's standard error of a mean equals that of the items.
    """
    if (score.low, score.high) != (None, None):
        return True
    return bool(score.stderr and mean.stderr is not None and isclose(score.stderr, mean.stderr))


def _shape(task: TaskOutcomes) -> str | None:
    if task.protocol != f"{task.task}-{task.num_fewshot}shot":
        return f"is the protocol of {task.task} with {task.num_fewshot} examples"
    if task.limit is not None and task.n > task.limit:
        return f"has {task.n} questions, and the limit was {task.limit}"
    if task.outcomes is not None and (len(task.outcomes) != task.n or set(task.outcomes) - {"0", "1"}):
        return f"its outcomes are not {task.n} of 0 and 1"
    return None


def _impossible(metric: Metric, n: int, limit: int) -> Iterator[str]:
    """Yields what is impossible about a share of `n` questions, of which at most `limit` flipped that way."""
    if metric.value is None:
        yield f"has no value, and {n} outcomes are there"
        return
    if not 0 <= metric.value <= 1:
        yield f"is {metric.value!r}, which is no share"
        return
    count = round(metric.value * n)
    if not 0 <= count <= limit:
        yield f"is {count} of {n} questions, and only {limit} ended that way"
        return
    yield from differences(metric, proportion([1] * count + [0] * (n - count)), f"{count} of {n} questions")


def _against_dense(subject: Subject, task: TaskOutcomes) -> Iterator[Finding]:
    """Compares the flips with those computed from the available dense records with the same questions."""
    record = subject.record
    asked = [
        (dense, before)
        for dense in subject.dense
        for before in dense.tasks
        if _one_model(dense, record)
        and before.outcomes is not None
        and (before.protocol, before.items_digest, before.metric)
        == (task.protocol, task.items_digest, task.metric)
    ]
    if not asked:
        yield subject.remark(
            "flips", f"{task.protocol}: no dense record at hand was asked the same questions"
        )
        return
    found = []
    for dense, before in asked:
        if _shape(before) or before.n != task.n:
            continue  # reported by the check `tasks` of the dense record
        wrong = [
            finding
            for due in flip_metrics(before, task)
            for finding in compare(subject, "flips", due, "the dense record")
        ]
        if not wrong:
            return
        found.append((dense, wrong[0]))
    for dense, finding in found:
        if same_machine_and_code(dense, record):
            yield finding
            return
    yield subject.remark(
        "flips",
        f"{task.protocol}: the dense record at hand is of another machine or code and answers otherwise",
    )


def _one_model(one: Record, other: Record) -> bool:
    """Whether two records have the same dense weights in the same dtype."""
    if one.model is None or other.model is None:
        return False
    return (one.model.weight_digest, one.model.dtype) == (other.model.weight_digest, other.model.dtype)


__all__ = ["check_flips", "check_tasks"]
