"""Whether models can still produce the right answers that they pick among options.

A model that picks the right option need not be able to say it: picking compares a few likelihoods, producing
needs the right tokens to be likelier than all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from reports.chapters.tasks import LEVEL, QuestionSet, distinct_title, question_set
from reports.rankings.labels import PRODUCTION
from reports.rankings.ranking import Ranking
from reports.tables import Column, TableCell, numbers, words
from reports.wording import MISSING, SHARE, probability, visible
from suite.results.records.items import TaskOutcomes
from suite.results.statistics.paired import Flips, holm, mcnemar
from suite.results.statistics.single import proportion


@dataclass(frozen=True)
class Kept:
    """What a pruned model kept of the answers that the dense model both picks and produces.

    Attributes:
        picked: 1 for each of these questions whose right option is still picked, otherwise 0.
        produced: the same for those whose right answer is still produced.
        flips: the test whether as many are only picked as are only produced.
    """

    picked: tuple[float, ...]
    produced: tuple[float, ...]
    flips: Flips


def production_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Builds one table per question set whose answers models could produce, the dense model first."""
    subjects = [
        subject
        for subject in [*dense_subjects(rankings), *pruned_subjects(rankings)]
        if any(task.right_answers is not None for task in subject.record.tasks)
    ]
    if all(subject.is_dense for subject in subjects):
        return None
    rows = grouped(
        subjects, lambda s: (question_set(task) for task in s.record.tasks if task.right_answers is not None)
    )
    parts = tuple(_part(questions, rows) for questions in rows)
    notes = (
        "An answer is produced if greedy decoding after the question generates exactly its tokens; it is "
        "picked if it is the likeliest of the options. The rank is that of the answer's least likely token "
        "among all tokens (geometric mean over questions; 1 = produced), the loss the mean over its tokens. "
        "Still picked and still produced are shares of the questions whose answer the dense model both picks "
        "and produces. “Picks what it cannot say” means that more of these are only picked than only "
        "produced, and “says what it does not pick” the opposite: McNemar's exact test, below "
        f"{LEVEL:g} after Holm's adjustment over the models of a table.",
    )
    return Chapter("production", "Recognition and production", parts, notes)


def _part(questions: QuestionSet, rows: Mapping[QuestionSet, Sequence[Subject]]) -> Part:
    subjects = rows[questions]
    tasks = [next(t for t in s.record.tasks if question_set(t) == questions) for s in subjects]
    labelled = {
        questions.metric: ("Picked", SHARE, ""),
        **{name: (label.title, label.unit, label.about) for name, label in PRODUCTION.items()},
    }
    has_options = any(task.right_answers and task.outcomes != task.right_answers.produced for task in tasks)
    columns: list[Column] = [
        metric_column(
            subjects,
            [subject.record.metric(name, questions.protocol) for subject in subjects],
            title=title,
            about=about,
            unit=unit,
            item="question",
        )
        for name, (title, unit, about) in labelled.items()
        if has_options or name != questions.metric
    ]
    if has_options and subjects[0].is_dense:
        columns += _kept_columns(subjects, [_kept(tasks[0], task) for task in tasks])
    title = distinct_title(questions, rows)
    return Part(chapter_table(title, subjects, columns), title)


def _kept(dense: TaskOutcomes, pruned: TaskOutcomes) -> Kept | None:
    before, after = dense.right_answers, pruned.right_answers
    if before is None or after is None or dense.outcomes is None or pruned.outcomes is None:
        return None
    answered = list(zip(dense.outcomes, before.produced, pruned.outcomes, after.produced, strict=False))
    both = [(float(picked), float(said)) for *known, picked, said in answered if known == ["1", "1"]]
    picked, produced = (tuple(pair[side] for pair in both) for side in (0, 1))
    return Kept(picked, produced, mcnemar(produced, picked))


def _kept_columns(subjects: Sequence[Subject], kept: Sequence[Kept | None]) -> list[Column]:
    tested = [
        None if s.is_dense or k is None else k.flips.p_value for s, k in zip(subjects, kept, strict=True)
    ]
    verdicts = [
        TableCell("the reference") if subject.is_dense else _verdict(one, p_value)
        for subject, one, p_value in zip(subjects, kept, holm(tested), strict=True)
    ]
    shares = [
        numbers(
            title,
            [
                TableCell(MISSING) if subject.is_dense else _share(getattr(one, side, ()))
                for subject, one in zip(subjects, kept, strict=True)
            ],
            "of what the dense model\npicks and produces\n95\u00a0% interval\nhigher is better",
        )
        for title, side in (("Still picked ↑", "picked"), ("Still produced ↑", "produced"))
    ]
    return [*shares, words("Do the two part?", verdicts, "McNemar, exact\nadjusted by Holm")]


def _share(values: Sequence[float]) -> TableCell:
    if not values:
        return TableCell(MISSING, "there are none")
    share = proportion(values)
    return TableCell(
        SHARE.value(share.value), f"{SHARE.interval(share.low, share.high)}, n = {len(values):,}"
    )


def _verdict(kept: Kept | None, p_value: float | None) -> TableCell:
    if kept is None or p_value is None:
        return TableCell("not comparable", visible(kept.flips.status) if kept is not None else "")
    only_picked, only_produced = kept.flips.wrong_to_right or 0, kept.flips.right_to_wrong or 0
    verdict = "picks what it cannot say" if only_picked > only_produced else "says what it does not pick"
    text = verdict if p_value < LEVEL else "no difference shown"
    detail = f"{only_picked} only picked, {only_produced} only produced"
    return TableCell(text, f"{detail}, {probability(p_value)}")
