"""Scores of tasks formed anew from their questions, and flips from two records' outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose

from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Environment, Metric, Record
from suite.results.statistics.paired import mcnemar
from suite.results.statistics.single import Estimate, mean_stderr, proportion, score_mean
from suite.results.verification.arithmetic import RELATIVE, Due, compare, differences
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import FLIPS, kinds_of


def check_tasks(subject: Subject) -> Iterator[Finding]:
    """Every score from its questions."""
    kinds = kinds_of(subject.record)
    for task in subject.record.tasks:
        if problem := _shape(task):
            yield subject.problem("tasks", f"{task.protocol}: {problem}")
            continue  # nothing can be formed of it
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
    """The flips of every task: possible, with the interval of their number, and those of the dense record."""
    tasks = {task.protocol: task for task in subject.record.tasks}
    flipped: dict[str, dict[str, Metric]] = {}
    for metric in subject.record.metrics:
        if metric.name in FLIPS:
            flipped.setdefault(metric.protocol, {})[metric.name] = metric
    for protocol, metrics in flipped.items():
        task = tasks.get(protocol)
        if task is None or (task.outcomes is not None and _shape(task)):
            continue  # `metrics` or `tasks` says so
        if task.outcomes is None:
            yield subject.problem("flips", f"{protocol}: flips of a task without outcomes")
            continue
        if missing := [name for name in FLIPS if name not in metrics]:
            yield subject.problem("flips", f"{protocol}: {missing[0]} is missing")
            continue
        consistent = True
        for name, limit in zip(FLIPS, (task.outcomes.count("0"), task.outcomes.count("1")), strict=True):
            for message in _impossible(metrics[name], task.n, limit):
                consistent = False
                yield subject.problem("flips", f"{name} {protocol}: {message}")
        if consistent:  # else the dense record could only say the same again
            yield from _against_dense(subject, task, metrics)


def _check_score(subject: Subject, task: TaskOutcomes, score: Metric) -> Iterator[Finding]:
    values = subject.values(task.protocol, score.name)
    if values is None and score.name == task.metric and task.outcomes is not None:
        values = [float(outcome) for outcome in task.outcomes]
    named = f"{score.name} {score.protocol}"
    if values is None:
        if subject.items is not None:
            # lm-eval forms every score from its questions' own, and all of these are written.
            yield subject.problem("tasks", f"{named} has no items in the side file")
        else:
            yield subject.remark("tasks", f"{named} has no items, so it was not formed anew")
        return
    if subject.items is not None and len(subject.values(task.protocol, task.metric) or ()) != task.n:
        return  # `items` says so
    values += [None] * (task.n - len(values))
    are_shares = all(value in (0.0, 1.0) for value in values)
    due = score_mean(score.name, values)
    if are_shares or _is_mean(score, due):
        # Earlier versions let the interval of graded shares leave [0, 1].
        earlier = None if are_shares else mean_stderr(values)
        yield from compare(
            *(subject, "tasks"),
            Due(score.name, score.protocol, due, score.direction, "its items", earlier=earlier),
        )
        return
    if _was_mean(score, due):
        yield subject.problem(
            "tasks",
            f"{named} is {score.value!r} with the error or interval of a mean, by its items {due.value!r}",
        )
        return
    # lm-eval forms some scores otherwise than as a mean (F1, a perplexity); then its own number stands.
    own = Estimate(score.value, score.stderr, None, None, task.n, score.status)
    for difference in differences(score, own):
        yield subject.problem("tasks", f"{named}: {difference.format(source='its questions')}")
    yield subject.remark("tasks", f"{named} is no mean of its items, so it was not formed anew")


def _was_mean(score: Metric, due: Estimate) -> bool:
    """Whether a score that is no mean of its items was written as one.

    Only means have an interval; and lm-eval's error of a mean is its items', to the last digits.
    """
    if (score.low, score.high) != (None, None):
        return True
    return bool(score.stderr) and due.stderr is not None and isclose(score.stderr or 0.0, due.stderr)


def _is_mean(score: Metric, due: Estimate) -> bool:
    if score.value is None or due.value is None:
        return False
    return isclose(score.value, due.value, rel_tol=RELATIVE, abs_tol=1e-12)


def _shape(task: TaskOutcomes) -> str | None:
    if task.protocol != f"{task.task}-{task.num_fewshot}shot":
        return f"is the protocol of {task.task} with {task.num_fewshot} examples"
    if task.limit is not None and task.n > task.limit:
        return f"has {task.n} questions, and the limit was {task.limit}"
    if task.outcomes is not None and (len(task.outcomes) != task.n or set(task.outcomes) - {"0", "1"}):
        return f"its outcomes are not {task.n} of 0 and 1"
    return None


def _impossible(metric: Metric, n: int, limit: int) -> Iterator[str]:
    """What cannot be about a share of `n` questions of which `limit` can have flipped that way."""
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
    due = proportion([1] * count + [0] * (n - count))
    for difference in differences(metric, due):
        yield difference.format(source=f"{count} of {n} questions")


def _against_dense(subject: Subject, task: TaskOutcomes, metrics: dict[str, Metric]) -> Iterator[Finding]:
    """Counts the flips against the dense records at hand that were asked the same."""
    record = subject.record
    asked = [
        (dense, outcomes.outcomes)
        for dense in subject.dense
        for outcomes in dense.tasks
        if _one_model(dense, record)
        and outcomes.outcomes is not None
        and (outcomes.protocol, outcomes.items_digest, outcomes.metric)
        == (task.protocol, task.items_digest, task.metric)
    ]
    if not asked:
        yield subject.remark(
            "flips", f"{task.protocol}: no dense record at hand was asked the same questions"
        )
        return
    assert task.outcomes is not None
    after = [int(outcome) for outcome in task.outcomes]
    found = []
    for dense, outcomes in asked:
        if len(outcomes) != len(after) or set(outcomes) - {"0", "1"}:
            continue  # that record's own check of its tasks says so
        flips = mcnemar([int(outcome) for outcome in outcomes], after)
        wrong = [
            f"{name} {task.protocol}: {difference.format(source='the dense record')}"
            for name, due in zip(FLIPS, (flips.lost, flips.gained), strict=True)
            for difference in differences(metrics[name], due)
        ]
        if not wrong:
            return
        found.append((one_machine(dense.environment, record.environment), dense, wrong[0]))
    for same_machine, dense, message in found:
        if same_machine and dense.code.source_digest == record.code.source_digest:
            yield subject.problem("flips", message)
            return
    yield subject.remark(
        "flips",
        f"{task.protocol}: the dense record at hand is of another machine or code and answers otherwise",
    )


def _one_model(one: Record, other: Record) -> bool:
    """Whether two records are of the same dense weights in the same dtype."""
    if one.model is None or other.model is None:
        return False
    return (one.model.weight_digest, one.model.dtype) == (other.model.weight_digest, other.model.dtype)


def one_machine(one: Environment, other: Environment) -> bool:
    """Whether two records were made where the same numbers come out to the bit: on CPUs, never on GPUs.

    A GPU adds up in an order that may change from run to run.
    """
    return one.device == other.device == "cpu" and all(
        getattr(one, field) == getattr(other, field)
        for field in ("processor", "threads", "packages", "native_bf16")
    )


def memory_ran_out(*records: Record) -> bool:
    """Whether memory ran out in one of them: other batches round otherwise. Only its warnings say so."""
    return any("memory ran out" in warning for record in records for warning in record.warnings)


__all__ = ["check_flips", "check_tasks", "memory_ran_out", "one_machine"]
