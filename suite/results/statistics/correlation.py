"""Whether two measures put the same things in the same order, e.g. methods by perplexity and by accuracy."""

from __future__ import annotations

from math import atanh, sqrt, tanh

import numpy as np
from scipy import stats

from suite.results.statistics.single import CONFIDENCE, Estimate, Values, as_pairs, problem_of


def rank_correlation(x: Values, y: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """Spearman's rank correlation with an interval.

    The interval is Fisher's z with the standard error sqrt((1 + rho^2 / 2) / (n - 3)) that ranks need
    (Bonett and Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
    Psychometrika 65, 2000). A bootstrap would do no better: what is ranked is a dozen methods or so, of which
    a resample draws many twice, and so makes ties that the data do not have.

    Args:
        x: `[n]`, one measure of each item.
        y: `[n]`, the other, in the same order.
        confidence: of the interval.

    Returns:
        Ties share their mean rank. A measure that is the same for all items orders nothing: no rho, and a
        status. Fewer than four items have no interval, nor have orders that agree or oppose each other
        entirely, as z is infinite there. There is no standard error.

    Raises:
        ValueError: the two do not have the same number of items.
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
    # Rounded, as orders that agree entirely may come out just short of 1, or past it.
    rho = round(float(stats.spearmanr(a, b).statistic), 12) + 0.0
    if n < 4 or abs(rho) == 1:
        return Estimate(rho, None, None, None, n)
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * sqrt((1 + rho**2 / 2) / (n - 3))
    return Estimate(rho, None, tanh(atanh(rho) - reach), tanh(atanh(rho) + reach), n)


__all__ = ["rank_correlation"]
