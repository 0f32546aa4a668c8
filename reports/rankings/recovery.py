"""Recovery: the accuracy of a pruned model over the dense one's, on the same questions."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

from scipy import stats

from suite.results.statistics.single import CONFIDENCE


@dataclass(frozen=True)
class Recovery:
    """Pruned accuracy divided by dense accuracy.

    Attributes:
        value: 1 if as many answers are right as before; None if the dense model had none right.
        low: lower end of the interval; None if there is none.
        high: upper end of the interval; None if there is none.
        status: `ok`, or why there is no value or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    status: str = "ok"


def recovery(both: int, lost: int, gained: int, *, confidence: float = CONFIDENCE) -> Recovery:
    """Computes the ratio of two accuracies on the same questions, with its paired interval.

    With a = `both`, b = `lost` and c = `gained`, the ratio is RR = (a + c) / (a + b). Its logarithm is close
    to normal, and the delta method on the multinomial counts gives Var(log RR) = (b + c) / ((a + b)(a + c)):
    the derivatives of log RR, weighted by the counts, sum to zero, so the variance is a (1 / (a + c) - 1 / (a
    + b))^2 + b / (a + b)^2 + c / (a + c)^2, which simplifies to this. The interval is exp(log RR +- z
    sqrt(Var)). Questions that both answer wrongly do not affect the ratio.

    M. S. Pepe, The Statistical Evaluation of Medical Tests for Classification and Prediction, 2003, section
    3.3 (the relative true positive fraction of two tests on the same people). J. Nam and W. C. Blackwelder,
    Analysis of the ratio of marginal probabilities in a matched-pair setting, Statistics in Medicine 21,
    2002, give a score interval that keeps its level with few pairs too, but needs an iteration.

    Args:
        both: number of questions that both models answer correctly.
        lost: number of questions that only the dense model answers correctly.
        gained: number of questions that only the pruned model answers correctly.
        confidence: confidence level of the interval.

        Returns:
        The recovery. It has no interval if the counts do not determine the variance: no answer of the pruned
        model is right, or no answer flipped (the formula would give an interval of zero width). It has no
        value if no answer of the dense model is right.

    Raises:
        ValueError: a count is negative.
    """
    if min(both, lost, gained) < 0:
        raise ValueError(f"counts must not be negative: {both}, {lost}, {gained}")
    dense, pruned, flipped = both + lost, both + gained, lost + gained
    if dense == 0:
        return Recovery(None, None, None, "the dense model answered nothing rightly")
    if pruned == 0:
        return Recovery(0.0, None, None, "nothing was answered rightly")
    ratio = pruned / dense
    if flipped == 0:
        return Recovery(ratio, None, None, "no answer flipped")
    half = float(stats.norm.ppf((1 + confidence) / 2)) * sqrt(flipped / dense / pruned)
    return Recovery(ratio, exp(log(ratio) - half), exp(log(ratio) + half))


__all__ = ["Recovery", "recovery"]
