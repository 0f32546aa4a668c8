"""Point estimates with intervals: of means Student t, of shares of items Wilson's.

Perplexities, which are exponentials of means, are in `perplexity`; two models compared by resampling, and
flips, in `paired`.
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
"""One number an item; None (or NaN, infinity) where an item has none."""

CONFIDENCE = 0.95
GRADED_SHARES = ("acc", "exact_match")
"""What the names of scores begin with that are shares of a question: TruthfulQA's graded `acc`, for one."""


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Attributes:
        value: None where it could not be had; `status` says why.
        stderr: its standard error; None from a single item, or beyond the range of floats.
        low: lower end of the interval; None likewise, but a share has one from a single item on.
        high: upper end; None likewise.
        n: items behind it.
        status: `ok`, or why there is no value.
    """

    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    status: str = "ok"


@dataclass(frozen=True)
class PairedEstimate:
    """Two models on the same items: the mean of first minus second, or the ratio of their perplexities.

    Attributes:
        value: above 0 (a ratio: above 1) the first is higher. None where it could not be had.
        low: lower end of the interval; None from fewer pairs than it takes, or beyond the range of floats.
        high: upper end; None likewise.
        p_value: two-sided, of no difference; None from a single pair.
        n: pairs.
        interval: of a bootstrap: `bca`; `percentile` where BCa has no value (all pairs differ alike); else
            None.
        status: `ok`, or why there is no value.
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
    """How far a number moves between calibration seeds; `seed_spread` says what it is not.

    Attributes:
        mean: over the seeds; None where it could not be had.
        deviation: the sample standard deviation; None from a single seed, or beyond the range of floats.
        minimum: the lowest; None where there is no mean.
        maximum: the highest; None likewise.
        n: seeds.
        status: `ok`, or why there is no mean.
    """

    mean: float | None
    deviation: float | None
    minimum: float | None
    maximum: float | None
    n: int
    status: str = "ok"


def mean_stderr(values: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent items, its standard error s / sqrt(n), and its Student t interval.

    Args:
        values: `[n]`. A single item gives a mean without an interval; an item that is not finite, or no
            item at all, gives no value and a status.
        confidence: of the interval.
    """
    return row_means(as_floats(values)[np.newaxis], confidence=confidence)[0]


def mean_share(shares: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of shares, e.g. of the agreement of each window.

    Args:
        shares: `[n]`, each in [0, 1]. A single item, or one that is not finite, as in `mean_stderr`.
        confidence: of the interval.

    Returns:
        What `mean_stderr` gives, with the interval cut to [0, 1]. That loses no coverage, since a mean of
        shares lies nowhere else. It also keeps the width 0 that Student t has where all items are alike;
        Wilson's interval, which does not, is for items that are 0 or 1 (`proportion`).

    Raises:
        ValueError: an item is no share.
    """
    found = as_floats(shares)
    beyond = found[np.isfinite(found) & ((found < 0) | (found > 1))]
    if len(beyond):
        raise ValueError(f"a share is from 0 to 1, not {beyond[0]:g}")
    estimate = mean_stderr(found, confidence=confidence)
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (estimate.low, estimate.high))
    return replace(estimate, low=low, high=high)


def score_mean(metric: str, values: Values) -> Estimate:
    """The mean of what a task's questions scored, with the interval that fits them.

    Args:
        metric: the score's name. Graded accuracies and exact matches are shares; of others nobody knows their
            range, even where all questions happen to lie in [0, 1].
        values: `[n]`, as in `mean_stderr`.
    """
    found = as_floats(values)
    if np.all((found == 0) | (found == 1)):
        return proportion(found)
    # NaN, where a question has no score, is no share either; the statuses are the same.
    is_share = metric.startswith(GRADED_SHARES) and np.all((found >= 0) & (found <= 1))
    return mean_share(found) if is_share else mean_stderr(found)


def row_means(rows: npt.NDArray[np.float64], *, confidence: float = CONFIDENCE) -> list[Estimate]:
    """`mean_stderr` of each row at once, which takes little longer than of one.

    Args:
        rows: `[n_models, n_items]`, NaN where an item has no number.
        confidence: of the intervals.
    """
    m, n = rows.shape
    if n == 0:
        return [Estimate(None, None, None, None, 0, "no items") for _ in range(m)]
    with np.errstate(invalid="ignore"):  # rows that are not finite have no value in the end
        # Scaled, so that the sums behind mean and spread cannot overflow.
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
    """The share of items that came out right, e.g. an accuracy.

    Args:
        outcomes: `[n]`, each 0 or 1 (or a bool). An item without an outcome, or no item at all, gives no
            value and a status.
        confidence: of the interval.

    Returns:
        The standard error is the sample's, s / sqrt(n) with n - 1 under s, so that it equals lm-eval's
        `acc_stderr`. The interval is Wilson's score interval and no multiple of that error: it stays inside
        [0, 1], keeps a width where all items came out alike, and there is one from a single item on
        (E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927).

    Raises:
        ValueError: an outcome is neither 0 nor 1; `mean_share` is for graded ones.
    """
    estimate = mean_stderr(outcomes, confidence=confidence)
    if estimate.value is None:
        return estimate
    found = as_floats(outcomes)
    require_outcomes(found)
    interval = stats.binomtest(int(found.sum()), len(found)).proportion_ci(confidence, method="wilson")
    return replace(estimate, low=float(interval.low), high=float(interval.high))


def seed_spread(values: Values) -> Spread:
    """How far one number moves when only the calibration seed changes.

    It is kept apart from the error over items, and the two are never added or averaged. The error over items
    is about one pruned model: how its number would move on other windows or questions. The spread over seeds
    is about the method: how the number moves when other calibration samples make it prune otherwise. All
    seeds are measured on the same items, so more of them make no interval over items narrower. It describes
    the seeds that were run and has no interval of its own; from three or five it would mean little.

    Args:
        values: `[n_seeds]`, e.g. the perplexity of each. A seed without a finite value gives no mean and a
            status, as the seeds that did come through are no fair sample of all.
    """
    found = as_floats(values)
    problem = problem_of(found)
    if problem is not None:
        return Spread(None, None, None, None, len(found), problem)
    minimum, maximum = float(found.min()), float(found.max())
    scale = float(np.max(np.abs(found))) or 1.0
    # Rounding may carry the mean of equal values past them.
    mean = min(max(float(np.mean(found / scale)) * scale, minimum), maximum)
    deviation = finite(float(np.std(found / scale, ddof=1)) * scale) if len(found) > 1 else None
    return Spread(mean, deviation, minimum, maximum, len(found))


def as_floats(values: Values) -> npt.NDArray[np.float64]:
    """`[n]`, NaN where an item has no number."""
    return np.array(values, dtype=np.float64)  # which makes NaN of None


def as_pairs(a: Values, b: Values) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`as_floats` of both.

    Raises:
        ValueError: the two do not have the same number of items.
    """
    first, second = as_floats(a), as_floats(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} items cannot be paired with {len(second)}")
    return first, second


def problem_of(values: npt.NDArray[np.float64]) -> str | None:
    """Why nothing can be said of these items, as a status; None where something can."""
    if len(values) == 0:
        return "no items"
    bad = int(np.sum(~np.isfinite(values)))
    return f"not finite: {bad} of {len(values)} items" if bad else None


def require_outcomes(values: npt.NDArray[np.float64]) -> None:
    """Refuses graded items.

    Raises:
        ValueError: an item is neither 0 nor 1.
    """
    graded = values[(values != 0) & (values != 1)]
    if len(graded):
        raise ValueError(f"an outcome is 0 (wrong) or 1 (right), not {graded[0]:g}")


def _t_quantile(share: float, freedom: int) -> float:
    # What `stats.t.ppf` comes down to, without the hundred microseconds it takes to get there: a report of
    # thousands of records has tens of thousands of intervals.
    return float(special.stdtrit(freedom, share))


def finite(value: float) -> float | None:
    """The value; None in place of one that is not finite."""
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
