"""What is formed of a task's questions: their digest, right or wrong, scores, flips between two models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from math import isclose

from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Metric
from suite.results.statistics.metrics import Direction, metric_of
from suite.results.statistics.paired import mcnemar
from suite.results.statistics.single import Estimate, score_mean

FLIPS: tuple[tuple[str, Direction], ...] = (
    ("flips_right_to_wrong", "lower"),
    ("flips_wrong_to_right", "none"),
)
"""Names and directions: what was lost against the dense model, and what was gained."""


def items_digest(hashes: Iterable[Sequence[str | None]]) -> str:
    """SHA-256 over lm-eval's hashes of questions, prompts and answers, in order."""
    digest = hashlib.sha256()
    for of_question in hashes:
        digest.update(("\0".join(map(str, of_question)) + "\n").encode())
    return digest.hexdigest()


def outcomes_of(values: Sequence[float | None]) -> str | None:
    """A character a question, `1` for right and `0` for wrong; None where a metric grades otherwise."""
    if not values or any(value not in (0.0, 1.0) for value in values):
        return None
    return "".join("1" if value == 1.0 else "0" for value in values)


def right(outcomes: str) -> tuple[float, ...]:
    """`[n]`, 1 where a question was answered rightly, else 0."""
    return tuple(map(float, outcomes))


def score_estimate(
    name: str, value: float | None, stderr: float | None, values: Sequence[float | None]
) -> Estimate:
    """A task's score with an interval of ours where it is the mean of the questions', else as lm-eval has it.

    Args:
        name: of the score.
        value: lm-eval's.
        stderr: lm-eval's.
        values: `[n]`, the questions' own.
    """
    if value is None:
        return Estimate(None, None, None, None, len(values), "lm-eval gives no finite value")
    mean = score_mean(name, values)
    if mean.value is not None and isclose(mean.value, value, rel_tol=1e-9, abs_tol=1e-12):
        return mean
    return Estimate(value, stderr, None, None, len(values))


def flip_metrics(dense: TaskOutcomes, pruned: TaskOutcomes) -> list[Metric]:
    """The answers that flipped between two models that were asked the same; none where they are graded."""
    if dense.outcomes is None or pruned.outcomes is None:
        return []
    flips = mcnemar(right(dense.outcomes), right(pruned.outcomes))
    return [
        metric_of(name, pruned.protocol, share, direction)
        for (name, direction), share in zip(FLIPS, (flips.lost, flips.gained), strict=True)
    ]


__all__ = ["FLIPS", "flip_metrics", "items_digest", "outcomes_of", "right", "score_estimate"]
