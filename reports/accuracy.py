"""Mean accuracy: one number for all tasks over the same questions, and which models are tied with the best.

The mean over tasks is unweighted, as in papers: every task counts the same, however many questions it has.
Its interval combines the tasks' Wilson intervals by adding the squares of their distances from the shares
(the method of variance estimates recovery; Zou and Donner, Statistics in Medicine 27, 2008): unlike a Wald
interval it does not shrink to zero width when all answers are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
import numpy.typing as npt

from reports.chapters.tasks import QuestionSet, question_set
from reports.rankings.scores import Mark
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Record
from suite.results.statistics.single import proportion

NORMAL_95 = 1.959963984540054
"""Half the width of a 95 % interval in standard errors; the normal value suits the large n of tasks."""

Questions = tuple[QuestionSet, ...]
"""What has to be equal for two means to be comparable: the questions of every task and how answers were
judged.
"""


@dataclass(frozen=True)
class MeanAccuracy:
    """The unweighted mean of the accuracies on several tasks.

    Attributes:
        value: share of right answers, averaged over tasks.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        n_tasks: number of tasks.
        n: number of questions of all tasks.
    """

    value: float
    low: float
    high: float
    n_tasks: int
    n: int


def questions_of(record: Record) -> Questions:
    """The questions of a record's tasks whose answers are right or wrong; empty if it has none."""
    return tuple(question_set(task) for task in _answered(record))


def common_questions(records: Sequence[Record]) -> Questions:
    """Returns the questions most pruned records answered, else most dense ones; empty if none did."""
    asked = Counter(questions for r in records if not r.cell.is_dense and (questions := questions_of(r)))
    if not asked:
        asked = Counter(questions for r in records if (questions := questions_of(r)))
    return asked.most_common(1)[0][0] if asked else ()


def mean_accuracy(record: Record, questions: Questions) -> MeanAccuracy | None:
    """Returns the mean over the tasks of `questions`; None if the record answered other questions."""
    tasks = _answered(record)
    if not questions or questions_of(record) != questions:
        return None
    shares = [_wilson((task.outcomes or "").count("1"), task.n) for task in tasks]
    value = sum(share for share, _, _ in shares) / len(shares)
    below = sqrt(sum((share - low) ** 2 for share, low, _ in shares)) / len(shares)
    above = sqrt(sum((high - share) ** 2 for share, _, high in shares)) / len(shares)
    return MeanAccuracy(value, value - below, value + above, len(shares), sum(task.n for task in tasks))


def marks_of(records: Sequence[Record], means: Sequence[MeanAccuracy | None]) -> list[Mark]:
    """Marks the highest mean accuracy and those that are not significantly below it.

    Args:
        records: records of one model, pruned to one pattern.
        means: `mean_accuracy` of each record over the same questions; records with None get no mark.

    Returns:
        One mark per record: `best` for the highest, `tied` if the paired 95 % interval of the difference from
        the best includes 0, `only` if no other record answered these questions.
    """
    measured = [i for i, mean in enumerate(means) if mean is not None]
    marks: list[Mark] = ["" for _ in records]
    if not measured:
        return marks
    best = max(measured, key=lambda i: one.value if (one := means[i]) is not None else 0.0)
    theirs = [_right(task) for task in _answered(records[best])]
    for i in measured:
        if i == best:
            marks[i] = "only" if len(measured) == 1 else "best"
        elif _is_tied(records[i], theirs):
            marks[i] = "tied"
    return marks


def _is_tied(record: Record, best: Sequence[npt.NDArray[np.float64]]) -> bool:
    """Whether the 95 % interval of the mean difference over the same questions includes 0."""
    differences = [theirs - _right(task) for theirs, task in zip(best, _answered(record), strict=True)]
    mean = float(np.mean([d.mean() for d in differences]))
    error = sqrt(sum(float(d.var(ddof=1)) / len(d) if len(d) > 1 else 1.0 for d in differences))
    return mean - NORMAL_95 * error / len(differences) <= 0


@lru_cache(maxsize=4096)
def _wilson(right: int, n: int) -> tuple[float, float, float]:
    """Returns the share of right answers and the two ends of its Wilson interval."""
    share = proportion([1.0] * right + [0.0] * (n - right))
    assert share.value is not None and share.low is not None and share.high is not None, "n is at least 1"
    return share.value, share.low, share.high


def _answered(record: Record) -> list[TaskOutcomes]:
    kept = [
        t for t in record.tasks if t.outcomes and len(t.outcomes) == t.n and set(t.outcomes) <= {"0", "1"}
    ]
    return sorted(kept, key=lambda t: t.protocol)


def _right(task: TaskOutcomes) -> npt.NDArray[np.float64]:
    assert task.outcomes is not None, "only tasks with outcomes are asked"
    return np.frombuffer(task.outcomes.encode(), dtype=np.uint8).astype(np.float64) - ord("0")


__all__ = ["MeanAccuracy", "common_questions", "marks_of", "mean_accuracy", "questions_of"]
