"""Compares two models on the same items by resampling and by counting flipped answers.

Neither method assumes a distribution of the items, unlike the Student t test of
`perplexity.paired_log_ratio`. Use them for skewed differences, such as KL divergences, and for answers that
are right or wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_test

from suite.results.statistics.single import (
    CONFIDENCE,
    Estimate,
    PairedEstimate,
    Values,
    as_pairs,
    problem_of,
    proportion,
    require_outcomes,
)

FEWEST_RESAMPLED = 6
"""Minimum number of pairs for a bootstrap. With fewer pairs its interval is far too narrow, and the p-value
of sign flips cannot reach 0.05."""

BATCH_ITEMS = 2**20
"""Number of items to resample at once: 8 MiB of doubles."""


@dataclass(frozen=True)
class Flips:
    """Answers that are right in one of two models and wrong in the other.

    Attributes:
        right_to_wrong: number of answers that are right in the first and wrong in the second model; None if
            they could not be counted.
        wrong_to_right: number of answers that changed the other way round; None likewise.
        lost: `right_to_wrong` as a share of all answers, with its Wilson interval.
        gained: `wrong_to_right` likewise.
        changed: share of answers that changed either way; it may be large even if the accuracies are equal.
        p_value: p-value of McNemar's exact test for equal numbers of lost and gained answers; None if they
            could not be counted.
        n: number of answers.
        status: `ok`, or why the flips could not be counted.
    """

    right_to_wrong: int | None
    wrong_to_right: int | None
    lost: Estimate
    gained: Estimate
    changed: Estimate
    p_value: float | None
    n: int
    status: str = "ok"


def paired_bootstrap(
    a: Values, b: Values, *, confidence: float = CONFIDENCE, n_resamples: int = 10_000, seed: int = 0
) -> PairedEstimate:
    """Returns the mean of a - b with an interval and a p-value that assume no distribution.

    The interval is the BCa bootstrap over pairs (Efron, Better bootstrap confidence intervals, 1987), which
    is more accurate for skewed differences than a percentile interval. The p-value comes from the sign-flip
    test: if the models did not differ, the opposite sign of each difference would be equally likely. Both
    resample the same differences and use the same mean. The p-value is not derived from the bootstrap, which
    is too optimistic for few pairs, where sign flips are exact (all 2^n of them, if these are at most
    `n_resamples`). Therefore the two may disagree close to the threshold; the p-value decides.

    Neither depends on the order of the pairs, and swapping the models mirrors the interval exactly.

    Args:
        a: `[n]`, e.g. window losses in nats (the mean is then a log perplexity) or KL divergences.
        b: `[n]`, the same items in the same order.
        confidence: confidence level of the interval.
        n_resamples: number of resamples of the bootstrap, and of sign flips if not all are tried.
        seed: seed of both.

    Returns:
        The estimate. If all differences are equal, the interval has no width; if all are 0, p = 1.

    Raises:
        ValueError: the two models have different numbers of items.
    """
    first, second = as_pairs(a, b)
    n = len(first)
    problem = problem_of(np.concatenate([first, second]))
    if problem is not None:
        return PairedEstimate(None, None, None, None, n, status=problem)
    with np.errstate(over="ignore"):
        differences = np.sort(first - second)
    if not np.isfinite(differences).all():
        return PairedEstimate(None, None, None, None, n, status="overflow: the items are too far apart")
    # The order of the models must not change the resamples: normalize the sign, and restore it at the end.
    mirrored = -differences[::-1]
    turned = mirrored.tolist() < differences.tolist()
    # Scaled so that sums cannot overflow.
    scale = float(np.max(np.abs(differences))) or 1.0
    scaled = (mirrored if turned else differences) / scale
    unit = -scale if turned else scale
    value = unit * float(np.mean(scaled)) + 0.0  # no negative zero
    if n == 1:
        return PairedEstimate(value, None, None, None, n)
    resampling = {"n_resamples": n_resamples, "batch": max(1, BATCH_ITEMS // n), "vectorized": True}
    p_value = _sign_flips(scaled, seed, resampling)
    if n < FEWEST_RESAMPLED:
        return PairedEstimate(value, None, None, p_value, n)
    kind, ends = _bootstrap(scaled, confidence, seed, resampling)
    low, high = sorted(unit * end + 0.0 for end in ends)
    return PairedEstimate(value, low, high, p_value, n, kind)


def mcnemar(a_correct: Values, b_correct: Values) -> Flips:
    """Counts and tests the flips between two models' answers to the same questions.

    McNemar's exact test checks whether as many answers were lost as gained: a two-sided binomial test of the
    flips (Q. McNemar, Note on the sampling error of the difference between correlated proportions, 1947).
    Without any flip p = 1.

    Args:
        a_correct: `[n]`, 0 or 1 (or a bool), answers of the model before, e.g. the dense one.
        b_correct: `[n]`, answers of the model after to the same questions in the same order.

    Raises:
        ValueError: the two have different numbers of answers, or a value is neither 0 nor 1.
    """
    a, b = as_pairs(a_correct, b_correct)
    problem = problem_of(np.concatenate([a, b]))
    if problem is not None:
        none = Estimate(None, None, None, None, len(a), problem)
        return Flips(None, None, none, none, none, None, len(a), problem)
    require_outcomes(np.concatenate([a, b]))
    lost, gained = a > b, a < b
    n_lost, n_gained, n_both = (int(np.sum(which)) for which in (lost, gained, a * b))
    table = [[n_both, n_lost], [n_gained, len(a) - n_both - n_lost - n_gained]]
    return Flips(
        right_to_wrong=n_lost,
        wrong_to_right=n_gained,
        lost=proportion(lost.astype(np.float64)),
        gained=proportion(gained.astype(np.float64)),
        changed=proportion((a != b).astype(np.float64)),
        p_value=float(mcnemar_test(table, exact=True).pvalue),
        n=len(a),
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p-values for multiple tests by Holm's step-down, which bounds the chance of any false alarm.

    S. Holm, A simple sequentially rejective multiple test procedure, 1979.

    Args:
        p_values: p-values of one family of tests; None entries do not count as tests.

    Returns:
        The adjusted p-values in the same order, None for None.

    Raises:
        ValueError: a p-value is outside [0, 1], or NaN.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    for p, _ in tested:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value lies in [0, 1], not {p!r}")
    # Own version, because that of statsmodels collects garbage on every call (60 ms); tests compare the two.
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for step, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - step)))
        adjusted[place] = highest
    return adjusted


def _sign_flips(differences: npt.NDArray[np.float64], seed: int, resampling: dict[str, Any]) -> float:
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", rng=np.random.default_rng(seed), **resampling
    )
    return float(test.pvalue)


def _bootstrap(
    differences: npt.NDArray[np.float64], confidence: float, seed: int, resampling: dict[str, Any]
) -> tuple[Literal["bca", "percentile"], tuple[float, float]]:
    def interval(method: str) -> tuple[float, float]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # SciPy warns if BCa has no value; `PairedEstimate.interval` reports that.
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                (differences,),
                np.mean,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
                **resampling,
            ).confidence_interval
        return float(found.low), float(found.high)

    bca = interval("BCa")
    return ("bca", bca) if np.isfinite(bca).all() else ("percentile", interval("percentile"))


__all__ = [
    "FEWEST_RESAMPLED",
    "Flips",
    "holm",
    "mcnemar",
    "paired_bootstrap",
]
