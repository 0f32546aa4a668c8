"""Computes digests, outcomes, scores, and flips between two models from the questions of a task."""

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
"""Names and directions of the flip metrics: answers lost and answers gained relative to the dense model."""


def items_digest(hashes: Iterable[Sequence[str | None]]) -> str:
    """Returns the SHA-256 over lm-eval's hashes of questions, prompts and answers, in order."""
    digest = hashlib.sha256()
    for of_question in hashes:
        digest.update(("\0".join(map(str, of_question)) + "\n").encode())
    return digest.hexdigest()


def outcomes_of(values: Sequence[float | None]) -> str | None:
    """Returns one character per question, `1` for right and `0` for wrong; None if there are other values."""
    if not values or any(value not in (0.0, 1.0) for value in values):
        return None
    return "".join("1" if value == 1.0 else "0" for value in values)


def right(outcomes: str) -> tuple[float, ...]:
    """Returns `[n]`, 1 for each question that was answered correctly, otherwise 0."""
    return tuple(map(float, outcomes))


def score_estimate(
    name: str, value: float | None, stderr: float | None, values: Sequence[float | None]
) -> Estimate:
    """Returns a task's score: with an interval if it is the mean over questions, otherwise as from lm-eval.

    Args:
        name: name of the score.
        value: the score from lm-eval.
        stderr: its standard error from lm-eval.
        values: `[n]`, the scores of the questions.
    """
    if value is None:
        return Estimate(None, None, None, None, len(values), "lm-eval gives no finite value")
    mean = score_mean(name, values)
    if mean.value is not None and isclose(mean.value, value, rel_tol=1e-9, abs_tol=1e-12):
        return mean
    return Estimate(value, stderr, None, None, len(values))


def flip_metrics(dense: TaskOutcomes, pruned: TaskOutcomes) -> list[Metric]:
    """Computes the flip metrics between two models with the same questions; empty for graded answers."""
    if dense.outcomes is None or pruned.outcomes is None:
        return []
    flips = mcnemar(right(dense.outcomes), right(pruned.outcomes))
    return [
        metric_of(name, pruned.protocol, share, direction)
        for (name, direction), share in zip(FLIPS, (flips.lost, flips.gained), strict=True)
    ]


__all__ = ["FLIPS", "flip_metrics", "items_digest", "outcomes_of", "right", "score_estimate"]
