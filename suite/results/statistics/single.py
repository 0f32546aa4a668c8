"""Point estimates with intervals: Student t for means, Wilson's for shares of items.

See `perplexity` for perplexities, which are exponentials of means, and `paired` for comparing two models by
resampling and by flips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Values = Sequence[float | None] | npt.NDArray[np.floating]
"""One number per item; None (or NaN, infinity) for items without a number."""

CONFIDENCE = 0.95
GRADED_SHARES = ("acc", "exact_match")
"""Prefixes of the names of scores that give each question a share, e.g. TruthfulQA's graded `acc`."""


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: the number; None if there is none, for the reason in `status`.
        stderr: the standard error; None for a single item, or if it is beyond the range of floats.
        low: lower end of the interval; None likewise, except that a share of a single item has one.
        high: upper end of the interval; None likewise.
        n: number of items.
        status: `ok`, or the reason for a missing value.
    """

    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    status: str = "ok"


@dataclass(frozen=True)
class PairedEstimate:
    """Comparison of two models on the same items: mean of first minus second, or ratio of perplexities.

    Attributes:
        value: the difference or ratio; above 0 (above 1 for a ratio) if the first is higher. None if there is
            none.
        low: lower end of the interval; None if there are too few pairs, or beyond the range of floats.
        high: upper end of the interval; None likewise.
        p_value: two-sided p-value of no difference; None for a single pair.
        n: number of pairs.
        interval: kind of a bootstrap interval: `bca`, or `percentile` if BCa has no value (all differences
            are equal); None for other intervals.
        status: `ok`, or the reason for a missing value.
    """

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    interval: Literal["bca", "percentile"] | None = None
    status: str = "ok"


@dataclass(frozen=True)
class Spread:
    """Variation of a number between calibration seeds; see `seed_spread` for what it does not cover.

    Attributes:
        mean: mean over the seeds; None if there is none.
        deviation: sample standard deviation; None for a single seed, or beyond the range of floats.
        minimum: lowest value; None if there is no mean.
        maximum: highest value; None if there is no mean.
        n: number of seeds.
        status: `ok`, or the reason for a missing mean.
    """

    mean: float | None
    deviation: float | None
    minimum: float | None
    maximum: float | None
    n: int
    status: str = "ok"


def mean_stderr(values: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """Returns the mean of independent items, its standard error s / sqrt(n), and its Student t interval.

    Args:
        values: `[n]`. For a single item there is no interval; for an item that is not finite, or for no
            items at all, there is no value but a status.
        confidence: confidence level of the interval.
    """
    return row_means(as_floats(values)[np.newaxis], confidence=confidence)[0]


def mean_share(shares: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """Returns the mean of shares, e.g. of the agreement of each window.

    Args:
        shares: `[n]`, each in [0, 1]. A single item, or one that is not finite, is treated as in
            `mean_stderr`.
        confidence: confidence level of the interval.

    Returns:
        The result of `mean_stderr`, with the interval clipped to [0, 1]. This loses no coverage, because a
        mean of shares is always in that range. If all items are equal, the interval has width 0, as with
        Student t; Wilson's interval, which has not, is for items that are 0 or 1 (`proportion`).

    Raises:
        ValueError: an item is not a share.
    """
    found = as_floats(shares)
    beyond = found[np.isfinite(found) & ((found < 0) | (found > 1))]
    if len(beyond):
        raise ValueError(f"a share is from 0 to 1, not {beyond[0]:g}")
    estimate = mean_stderr(found, confidence=confidence)
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (estimate.low, estimate.high))
    return replace(estimate, low=low, high=high)


def score_mean(metric: str, values: Values) -> Estimate:
    """Returns the mean of the scores of a task's questions, with the interval for their kind.

    Args:
        metric: name of the score. Graded accuracies and exact matches are shares; the range of other scores
            is unknown, even if all values happen to be in [0, 1].
        values: `[n]`, as in `mean_stderr`.
    """
    found = as_floats(values)
    if np.all((found == 0) | (found == 1)):
        return proportion(found)
    # With NaN, for a question without a score, this is False; `mean_share` would return the same status.
    is_share = metric.startswith(GRADED_SHARES) and np.all((found >= 0) & (found <= 1))
    return mean_share(found) if is_share else mean_stderr(found)


def row_means(rows: npt.NDArray[np.float64], *, confidence: float = CONFIDENCE) -> list[Estimate]:
    """Computes `mean_stderr` of several rows at once, in little more time than for one row.

    Args:
        rows: `[n_models, n_items]`, NaN for items without a number.
        confidence: confidence level of the intervals.
    """
    m, n = rows.shape
    if n == 0:
        return [Estimate(None, None, None, None, 0, "no items") for _ in range(m)]
    with np.errstate(invalid="ignore"):  # rows that are not finite get no value below
        # Scaled so that the sums for mean and deviation cannot overflow.
        scales = np.max(np.abs(rows), axis=1)
        scales[scales == 0] = 1.0
        scaled = rows / scales[:, np.newaxis]
        means = np.mean(scaled, axis=1) * scales
        deviations = np.std(scaled, axis=1, ddof=1) * scales if n > 1 else None
    quantile = _t_quantile((1 + confidence) / 2, n - 1) if n > 1 else 0.0
    estimates = []
    for i in range(m):
        mean = float(means[i])
        if (problem := problem_of(rows[i])) is not None:
            estimates.append(Estimate(None, None, None, None, n, problem))
        elif deviations is None:
            estimates.append(Estimate(mean, None, None, None, 1))
        else:
            stderr = float(deviations[i]) / sqrt(n)
            reach = stderr * quantile
            ends = finite(mean - reach), finite(mean + reach)
            estimates.append(Estimate(mean, finite(stderr), *ends, n))
    return estimates


def proportion(outcomes: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """Returns the share of items with outcome 1, e.g. an accuracy.

    Args:
        outcomes: `[n]`, each 0 or 1 (or a bool). For an item without an outcome, or for no items at all,
            there is no value but a status.
        confidence: confidence level of the interval.

    Returns:
        The estimate. The standard error is that of the sample, s / sqrt(n), where s divides by n - 1, so that
        it equals lm-eval's `acc_stderr`. The interval is Wilson's score interval, not a multiple of that
        error: it stays inside [0, 1], has a positive width even if all outcomes are equal, and exists for a
        single item (E. B. Wilson, Probable inference, the law of succession, and statistical inference,
        1927).

    Raises:
        ValueError: an outcome is neither 0 nor 1; use `mean_share` for graded outcomes.
    """
    estimate = mean_stderr(outcomes, confidence=confidence)
    if estimate.value is None:
        return estimate
    found = as_floats(outcomes)
    require_outcomes(found)
    interval = stats.binomtest(int(found.sum()), len(found)).proportion_ci(confidence, method="wilson")
    return replace(estimate, low=float(interval.low), high=float(interval.high))


def seed_spread(values: Values) -> Spread:
    """Returns how much a number varies if only the calibration seed changes.

    It is separate from the error over items, and the two are never added or averaged. The error over items
    concerns one pruned model: how its number would change on other windows or questions. The spread over
    seeds concerns the method: how the number changes if other calibration samples lead to another mask. All
    seeds are measured on the same items, so more seeds do not make an interval over items narrower. The
    spread describes the seeds that were run and has no interval; for three or five seeds it would mean
    little.

    Args:
        values: `[n_seeds]`, e.g. the perplexity for each seed. If a seed has no finite value, there is no
            mean but a status, because the other seeds are not a fair sample.
    """
    found = as_floats(values)
    problem = problem_of(found)
    if problem is not None:
        return Spread(None, None, None, None, len(found), problem)
    minimum, maximum = float(found.min()), float(found.max())
    scale = float(np.max(np.abs(found))) or 1.0
    # Rounding may move the mean of equal values beyond them.
    mean = min(max(float(np.mean(found / scale)) * scale, minimum), maximum)
    deviation = finite(float(np.std(found / scale, ddof=1)) * scale) if len(found) > 1 else None
    return Spread(mean, deviation, minimum, maximum, len(found))


def as_floats(values: Values) -> npt.NDArray[np.float64]:
    """Converts values to an array `[n]`, with NaN for items without a number."""
    return np.array(values, dtype=np.float64)  # converts None to NaN


def as_pairs(a: Values, b: Values) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Converts both with `as_floats`.

    Raises:
        ValueError: the two have different numbers of items.
    """
    first, second = as_floats(a), as_floats(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} items cannot be paired with {len(second)}")
    return first, second


def problem_of(values: npt.NDArray[np.float64]) -> str | None:
    """Returns the status that explains why these items give no estimate; None if they give one."""
    if len(values) == 0:
        return "no items"
    bad = int(np.sum(~np.isfinite(values)))
    return f"not finite: {bad} of {len(values)} items" if bad else None


def require_outcomes(values: npt.NDArray[np.float64]) -> None:
    """Checks that all items are 0 or 1.

    Raises:
        ValueError: an item is neither 0 nor 1.
    """
    graded = values[(values != 0) & (values != 1)]
    if len(graded):
        raise ValueError(f"an outcome is 0 (wrong) or 1 (right), not {graded[0]:g}")


def _t_quantile(share: float, freedom: int) -> float:
    # Same as `stats.t.ppf`, which takes a hundred microseconds more per call: a report of thousands of
    # records has tens of thousands of intervals.
    return float(special.stdtrit(freedom, share))


def finite(value: float) -> float | None:
    """Returns the value, or None if it is not finite."""
    return value if isfinite(value) else None


__all__ = [
    "CONFIDENCE",
    "Estimate",
    "PairedEstimate",
    "Spread",
    "Values",
    "as_floats",
    "as_pairs",
    "finite",
    "mean_share",
    "mean_stderr",
    "problem_of",
    "proportion",
    "require_outcomes",
    "row_means",
    "score_mean",
    "seed_spread",
]
