"""Accuracy on tasks, the answers that flipped, and whether the accuracy differs from the dense model's.

Two scores share a column only if version, limit and all questions are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.chapters.chapter import (
    Chapter,
    Part,
    Subject,
    chapter_table,
    dense_subjects,
    grouped,
    metric_column,
    pruned_subjects,
)
from reports.rankings.labels import PRODUCTION
from reports.rankings.ranking import Ranking
from reports.tables import Column, TableCell, numbers, words
from reports.wording import BETTER, MISSING, SHARE, Unit, counted, listed, probability, visible
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Metric, Record
from suite.results.statistics.paired import Flips, holm, mcnemar

LEVEL = 0.05
"""An adjusted p-value below this level counts as a difference."""

_FLIPS = ("flips_right_to_wrong", "flips_wrong_to_right")
_GRADED = Unit(places=4)


@dataclass(frozen=True, order=True)
class QuestionSet:
    """What has to be equal for two scores of a task to be comparable."""

    protocol: str
    version: str
    limit: int
    """0 = all questions."""
    n: int
    items_digest: str
    metric: str

    @property
    def title(self) -> str:
        """Describes the set in words, without the digest."""
        version = f", version {visible(self.version)}" if self.version else ""
        asked = f"the first {self.n:,} questions" if self.limit else f"all {counted(self.n, 'question')}"
        return f"{visible(self.protocol)}{version}, {asked}"


@dataclass(frozen=True)
class Against:
    """One task of one record compared with the dense model."""

    flips: Flips | None
    """None if the two cannot be compared."""
    reason: str = ""
    """Why they cannot be compared."""
    p_value: float | None = None
    """McNemar's p-value, adjusted for all tasks of the record that could be compared."""
    n_tests: int = 0
    """The number of these tasks."""


def tasks_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Builds one table per question set, the dense model first."""
    references = rankings[0].references
    pruned = [s for s in pruned_subjects(rankings) if s.record.tasks]
    dense = [s for s in dense_subjects(rankings) if s.record.tasks]
    if not pruned and not dense:
        return None
    judged = {id(s.record): against_dense(s.record, references) for s in pruned}
    rows = grouped([*dense, *pruned], lambda subject: map(question_set, subject.record.tasks))
    parts = tuple(_part(questions, rows, judged) for questions in rows)
    notes = (
        "Intervals of shares are Wilson's 95 %, over the questions. A flip is an answer whose correctness "
        "changed compared with the dense model; both directions are shown because they cancel in the "
        "accuracy. “Lower” and “higher” mean that the accuracy differs from the dense model's: McNemar's "
        "exact test on the "
        f"flips, below {LEVEL:g} after Holm's adjustment over all tasks of the same model that could be "
        "tested. Numbers of two tables are not comparable.",
    )
    return Chapter("tasks", "Tasks", parts, notes)


def _part(
    questions: QuestionSet,
    rows: Mapping[QuestionSet, Sequence[Subject]],
    judged: Mapping[int, Mapping[TaskOutcomes, Against]],
) -> Part:
    subjects = rows[questions]
    tasks = [next(t for t in s.record.tasks if question_set(t) == questions) for s in subjects]
    columns: list[Column] = [
        metric_column(
            subjects,
            [s.record.metric(name, questions.protocol) for s in subjects],
            title=visible(name),
            about="" if name == questions.metric else "not tested",
            unit=_unit(name),
            item="question",
        )
        for name in _metrics(questions, subjects)
    ]
    against = [
        None if s.is_dense else judged[id(s.record)][task] for s, task in zip(subjects, tasks, strict=True)
    ]
    if not all(s.is_dense for s in subjects):
        columns += [
            _flips_column(subjects, against, questions.protocol, lost=True),
            _flips_column(subjects, against, questions.protocol, lost=False),
            words("Against dense", map(_verdict_cell, against), "McNemar, exact\nadjusted by Holm"),
        ]
    title = distinct_title(questions, rows)
    return Part(chapter_table(title, subjects, columns), title)


def distinct_title(questions: QuestionSet, among: Iterable[QuestionSet]) -> str:
    """Returns the title of a question set, with its digest if another set has the same title."""
    title = questions.title
    if sum(other.title == title for other in among) > 1:
        title += f", {visible(questions.metric)}, questions {questions.items_digest[:8]}"
    return title


def against_dense(record: Record, references: Sequence[Record]) -> dict[TaskOutcomes, Against]:
    """Compares every task of a pruned record; its p-values are one family of tests."""
    found = [_compare(task, references) for task in record.tasks]
    adjusted = holm([one.flips.p_value if one.flips else None for one in found])
    n_tests = sum(p is not None for p in adjusted)
    return {
        task: Against(one.flips, one.reason, p_value, n_tests)
        for task, one, p_value in zip(record.tasks, found, adjusted, strict=True)
    }


def _compare(task: TaskOutcomes, references: Sequence[Record]) -> Against:
    asked = [t for record in references for t in record.tasks if t.protocol == task.protocol]
    if not asked:
        return Against(None, "not comparable: the dense model was not asked this")
    same = next((t for t in asked if question_set(t) == question_set(task)), None)
    if same is None:
        return Against(None, f"not comparable: {_difference(task, asked[0])}")
    if task.outcomes is None or same.outcomes is None:
        return Against(None, "not comparable: answers are graded, not right or wrong")
    if len(task.outcomes) != len(same.outcomes) or not {*task.outcomes, *same.outcomes} <= {"0", "1"}:
        return Against(None, "not comparable: the stored outcomes are damaged")
    flips = mcnemar([int(one) for one in same.outcomes], [int(one) for one in task.outcomes])
    return Against(flips, flips.status if flips.p_value is None else "")


def _difference(task: TaskOutcomes, dense: TaskOutcomes) -> str:
    """Describes how two question sets of one protocol differ."""
    parts = []
    if task.version != dense.version:
        parts.append(f"version {visible(dense.version or 'none')}")
    if task.limit != dense.limit:
        parts.append(f"limit {dense.limit or 'none'}")
    if task.metric != dense.metric:
        parts.append(f"metric {visible(dense.metric)}")
    if task.items_digest != dense.items_digest:
        parts.append("other questions")
    return f"the dense model's has {listed(parts)}"


def question_set(task: TaskOutcomes) -> QuestionSet:
    """Returns what another score of the task must have in common to be comparable with this one."""
    return QuestionSet(task.protocol, task.version, task.limit or 0, task.n, task.items_digest, task.metric)


def _metrics(questions: QuestionSet, subjects: Sequence[Subject]) -> list[str]:
    """Returns the metric that `outcomes` records, then the other metrics of the task."""
    names = {m.name: None for s in subjects for m in s.record.metrics if m.protocol == questions.protocol}
    return [questions.metric, *(n for n in names if n not in (questions.metric, *_FLIPS, *PRODUCTION))]


def _unit(metric: str) -> Unit:
    return SHARE if metric.startswith(("acc", "exact_match")) else _GRADED


def _flips_column(
    subjects: Sequence[Subject], against: Sequence[Against | None], protocol: str, *, lost: bool
) -> Column:
    name = _FLIPS[0 if lost else 1]
    title, direction = ("Right to wrong ↓", "lower") if lost else ("Wrong to right", "none")
    cells = [
        _flips_cell(one, s.record.metric(name, protocol), lost=lost)
        for s, one in zip(subjects, against, strict=True)
    ]
    return numbers(title, cells, f"questions\nshare, 95\u00a0% interval\n{BETTER[direction]}")


def _flips_cell(against: Against | None, metric: Metric | None, *, lost: bool) -> TableCell:
    """Counts from both records' answers, else from the record alone, which may use another dense record."""
    if against is None:
        return TableCell(MISSING)
    flips = against.flips
    if flips is not None and flips.right_to_wrong is not None and flips.wrong_to_right is not None:
        share = flips.lost if lost else flips.gained
        count = flips.right_to_wrong if lost else flips.wrong_to_right
        spread = SHARE.interval(share.low, share.high)
        return TableCell(f"{count:,}", f"{SHARE.value(share.value)} ({spread})")
    if metric is None or metric.value is None:
        return TableCell(MISSING)
    spread = SHARE.interval(metric.low, metric.high)
    counted_then = MISSING if metric.n is None else f"{round(metric.value * metric.n):,}"
    return TableCell(counted_then, SHARE.value(metric.value) + (f" ({spread})" if spread else ""))


def _verdict_cell(against: Against | None) -> TableCell:
    if against is None:
        return TableCell("the reference")
    if against.p_value is None or against.flips is None:
        text, _, detail = against.reason.partition(": ")
        return TableCell(text, detail)
    lost, gained = against.flips.right_to_wrong or 0, against.flips.wrong_to_right or 0
    verdict = "lower" if lost > gained else "higher"
    text = verdict if against.p_value < LEVEL else "no difference shown"
    return TableCell(text, f"{probability(against.p_value)}, {counted(against.n_tests, 'task')}")
