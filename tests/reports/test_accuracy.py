"""The mean accuracy over tasks: its interval covers, and the questions tell who is tied with the best."""

from __future__ import annotations

import random
from math import sqrt

import pytest

from reports.accuracy import Questions, common_questions, marks_of, mean_accuracy, questions_of
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Record
from tests.reports.synthetic import make_record


def task(name: str, outcomes: str | None, *, digest: str = "d", n: int | None = None) -> TaskOutcomes:
    count = len(outcomes or "") if n is None else n
    return TaskOutcomes(
        task=name,
        protocol=f"{name}-0shot",
        version="1",
        num_fewshot=0,
        limit=None,
        n=count,
        docs_digest="docs",
        items_digest=digest,
        metric="acc",
        outcomes=outcomes,
    )


def marked(records: list[Record], questions: Questions) -> list[str]:
    return [*marks_of(records, [mean_accuracy(record, questions) for record in records])]


def answered(*tasks: TaskOutcomes) -> Record:
    return make_record("wanda").model_copy(update={"tasks": tasks})


def test_a_task_counts_as_much_as_another_however_many_questions_it_has() -> None:
    record = answered(task("a", "1" * 90 + "0" * 10), task("b", "10"))
    accuracy = mean_accuracy(record, questions_of(record))
    assert accuracy is not None
    assert accuracy.value == pytest.approx((0.9 + 0.5) / 2)
    assert (accuracy.n_tasks, accuracy.n) == (2, 102)


def test_of_a_single_task_the_interval_is_wilsons() -> None:
    record = answered(task("a", "1" * 8 + "0" * 2))
    accuracy = mean_accuracy(record, questions_of(record))
    z, p, n = 1.959964, 0.8, 10
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert accuracy is not None
    assert (accuracy.low, accuracy.high) == pytest.approx((center - half, center + half), rel=1e-5)


def test_all_right_still_has_an_interval() -> None:
    record = answered(task("a", "1" * 20), task("b", "1" * 20))
    accuracy = mean_accuracy(record, questions_of(record))
    assert accuracy is not None and accuracy.value == accuracy.high == 1.0 and 0.85 < accuracy.low < 0.95


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    draw, shares, sizes = random.Random(0), (0.86, 0.59, 0.3), (75, 40, 75)
    covered = 0
    for _ in range(400):
        pairs = zip("abc", shares, sizes, strict=True)
        tasks = [task(name, "".join("01"[draw.random() < p] for _ in range(n))) for name, p, n in pairs]
        record = answered(*tasks)
        accuracy = mean_accuracy(record, questions_of(record))
        assert accuracy is not None
        covered += accuracy.low <= sum(shares) / 3 <= accuracy.high
    assert 0.92 <= covered / 400 <= 0.98


def test_other_questions_have_no_part_in_it() -> None:
    ours, other = answered(task("a", "1100")), answered(task("a", "1100", digest="other"))
    graded = answered(task("a", None, n=4))
    common = common_questions([ours, ours, other, graded, answered()])
    assert common == questions_of(ours)
    assert [mean_accuracy(r, common) is None for r in (ours, other, graded)] == [False, True, True]
    assert common_questions([graded, answered()]) == ()
    assert mean_accuracy(ours, ()) is None


def test_damaged_outcomes_are_not_counted() -> None:
    assert questions_of(answered(task("a", "12"), task("b", "11", n=3))) == ()


def test_the_best_is_marked_and_whom_the_questions_cannot_tell_from_it() -> None:
    best = answered(task("a", "1" * 60 + "0" * 40))
    near = answered(task("a", "0" * 2 + "1" * 57 + "0" * 41))
    far = answered(task("a", "0" * 30 + "1" * 30 + "0" * 40))
    other = answered(task("a", "1" * 99 + "0", digest="other"))
    questions = questions_of(best)
    assert marked([far, best, near, other], questions) == ["", "best", "tied", ""]
    assert marked([near, other], questions) == ["only", ""]
    assert marked([other], questions) == [""]
    assert marked([], questions) == []


def test_pairing_tells_apart_what_intervals_alone_would_not() -> None:
    # The intervals of 60 and 52 of 100 overlap; eight questions lost and none won do not look like chance.
    best, lost = answered(task("a", "1" * 60 + "0" * 40)), answered(task("a", "1" * 52 + "0" * 48))
    questions = questions_of(best)
    ours, theirs = mean_accuracy(best, questions), mean_accuracy(lost, questions)
    assert ours is not None and theirs is not None and ours.low < theirs.high
    assert marked([best, lost], questions) == ["best", ""]
    # As many lost, and as many but four won elsewhere: a tie.
    mixed = answered(task("a", "0" * 20 + "1" * 56 + "0" * 24))
    assert marked([best, mixed], questions) == ["best", "tied"]
