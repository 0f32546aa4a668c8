"""Whether two measures rank items in the same order, e.g. methods by perplexity and by accuracy."""

from __future__ import annotations

from math import atanh, sqrt, tanh

import numpy as np
from scipy import stats

from suite.results.statistics.single import CONFIDENCE, Estimate, Values, as_pairs, problem_of


def rank_correlation(x: Values, y: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """Returns Spearman's rank correlation with an interval.

    The interval is Fisher's z with the standard error sqrt((1 + rho^2 / 2) / (n - 3)) for ranks (Bonett and
    Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations, Psychometrika
    65, 2000). A bootstrap would not be better: with about a dozen methods, a resample draws many of them
    twice, which creates ties that the data do not have.

    Args:
        x: `[n]`, one measure per item.
        y: `[n]`, the other measure, in the same order.
        confidence: confidence level of the interval.

    Returns:
        The estimate of rho, without a standard error. Tied values share their mean rank. If a measure is the
        same for all items, there is no value but a status. There is no interval for fewer than four items,
        nor for orders that fully agree or are fully reversed, because z is infinite there.

    Raises:
        ValueError: the two measures have different numbers of items.
    """
    a, b = as_pairs(x, y)
    n = len(a)
    problem = problem_of(np.concatenate([a, b]))
    if problem is None and n == 1:
        problem = "a single item has no order"
    if problem is None and (len(np.unique(a)) == 1 or len(np.unique(b)) == 1):
        problem = "all values of one measure are equal"
    if problem is not None:
        return Estimate(None, None, None, None, n, problem)
    # Rounded, because rho of fully agreeing orders may be slightly below or above 1.
    rho = round(float(stats.spearmanr(a, b).statistic), 12) + 0.0
    if n < 4 or abs(rho) == 1:
        return Estimate(rho, None, None, None, n)
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * sqrt((1 + rho**2 / 2) / (n - 3))
    return Estimate(rho, None, tanh(atanh(rho) - reach), tanh(atanh(rho) + reach), n)


__all__ = ["rank_correlation"]
