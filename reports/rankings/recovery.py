"""Recovery: the accuracy of a pruned model over the dense one's, on the same questions."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

from scipy import stats

from suite.results.statistics.single import CONFIDENCE


@dataclass(frozen=True)
class Recovery:
    """Accuracy pruned over accuracy dense.

    Attributes:
        value: 1 where as many answers are right as before; None where the dense model had none right.
        low: lower end of the interval; None where there is none.
        high: upper end; None likewise.
        status: `ok`, or why there is no value or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    status: str = "ok"


def recovery(both: int, lost: int, gained: int, *, confidence: float = CONFIDENCE) -> Recovery:
    """The ratio of two accuracies on the same questions, with its paired interval.

    With a = `both`, b = `lost` and c = `gained`, the ratio is RR = (a + c) / (a + b). Its logarithm is close
    to normal, and the delta method on the multinomial counts gives Var(log RR) = (b + c) / ((a + b)(a + c)):
    the derivatives of log RR, weighted by the counts, sum to zero, so what remains is
    a (1 / (a + c) - 1 / (a + b))^2 + b / (a + b)^2 + c / (a + c)^2, which simplifies to it. The interval is
    exp(log RR +- z sqrt(Var)). Questions that both answer wrongly say nothing about the ratio.

    M. S. Pepe, The Statistical Evaluation of Medical Tests for Classification and Prediction, 2003, section
    3.3 (the relative true positive fraction of two tests on the same people). J. Nam and W. C. Blackwelder,
    Analysis of the ratio of marginal probabilities in a matched-pair setting, Statistics in Medicine 21,
    2002, have a score interval that keeps its level on few pairs too, and needs an iteration.

    Args:
        both: questions that both models answer rightly.
        lost: the dense one rightly, the pruned one wrongly.
        gained: the other way round.
        confidence: of the interval.

    Returns:
        Without an interval where the counts cannot tell the variance: no answer of the pruned model is right,
        or no answer flipped (the formula would give an interval without width). Without a value where no
        answer of the dense model is right.

    Raises:
        ValueError: a count is negative.
    """
    if min(both, lost, gained) < 0:
        raise ValueError(f"counts are not negative: {both}, {lost}, {gained}")
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
