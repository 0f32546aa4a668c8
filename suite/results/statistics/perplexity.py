"""Perplexities from window losses with their intervals, and the ratio of two models' on the same windows.

Perplexity is the exponential of a mean, so its interval is formed on the log scale and carried over; it is
not symmetric. Windows are treated as independent draws, which neighbours in one text are not quite: intervals
of single models are a little too narrow for it, paired ones hardly, because what neighbours share cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import numpy as np
import numpy.typing as npt
from scipy import special

from suite.results.statistics.single import (
    CONFIDENCE,
    Estimate,
    PairedEstimate,
    Values,
    as_floats,
    finite,
    problem_of,
    row_means,
)


def perplexity_from_nll(window_nll: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """Perplexity exp(mean NLL) with its interval.

    Args:
        window_nll: `[n_windows]`, the mean NLL in nats of each window's predicted tokens; all windows
            predict equally many.
        confidence: of the interval.

    Returns:
        The interval is Student t on the mean NLL, exponentiated; the standard error is the delta method's,
        perplexity times the standard error of the mean NLL.
    """
    return perplexities_from_nll([window_nll], confidence=confidence)[0]


def perplexities_from_nll(models_nll: Sequence[Values], *, confidence: float = CONFIDENCE) -> list[Estimate]:
    """`perplexity_from_nll` of several models at once, which takes little longer than of one.

    Args:
        models_nll: `[n_models, n_windows]`, nats.
        confidence: of the intervals.
    """
    if not models_nll:
        return []
    return [_perplexity(log) for log in row_means(_rows(models_nll), confidence=confidence)]


def _perplexity(log: Estimate) -> Estimate:
    if log.value is None:
        return log
    value = _exp(log.value)
    if value is None:
        return Estimate(None, None, None, None, log.n, f"overflow: exp of a mean NLL of {log.value:.6g}")
    if log.stderr is None:
        return Estimate(value, None, None, None, log.n)
    return Estimate(value, finite(value * log.stderr), _exp(log.low), _exp(log.high), log.n)


def paired_log_ratio(a_nll: Values, b_nll: Values, *, confidence: float = CONFIDENCE) -> PairedEstimate:
    """Perplexity of a over perplexity of b, from both models' losses on the same windows.

    The windows' differences a - b are tested with the paired Student t test; ratio and interval are the
    exponential of their mean and of its interval.

    Args:
        a_nll: `[n_windows]`, nats.
        b_nll: `[n_windows]`, the same windows in the same order.
        confidence: of the interval.

    Raises:
        ValueError: the two do not have the same number of windows.
    """
    return paired_log_ratios([a_nll], b_nll, confidence=confidence)[0]


def paired_log_ratios(
    models_nll: Sequence[Values], base_nll: Values, *, confidence: float = CONFIDENCE
) -> list[PairedEstimate]:
    """`paired_log_ratio` of several models to the same one, which takes little longer than of one.

    Args:
        models_nll: `[n_models, n_windows]`, nats.
        base_nll: `[n_windows]`, the same windows in the same order.
        confidence: of the intervals.

    Raises:
        ValueError: a model does not have the base's number of windows.
    """
    base = as_floats(base_nll)
    for nll in models_nll:
        if len(nll) != len(base):
            raise ValueError(f"{len(nll)} windows cannot be paired with {len(base)}")
    rows = _rows(models_nll)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite has its status
        logs = row_means(rows - base, confidence=confidence)
    return [
        _paired(log, problem_of(np.concatenate([row, base]))) for log, row in zip(logs, rows, strict=True)
    ]


def _paired(log: Estimate, problem: str | None) -> PairedEstimate:
    if problem is not None:
        return PairedEstimate(None, None, None, None, log.n, status=problem)
    ratio = _exp(log.value)
    if ratio is None:
        status = "overflow: the losses are too far apart"
        return PairedEstimate(None, None, None, None, log.n, status=status)
    return PairedEstimate(ratio, _exp(log.low), _exp(log.high), _p_value(log), log.n)


def _rows(models: Sequence[Values]) -> npt.NDArray[np.float64]:
    """`[n_models, n_items]`."""
    return np.array([as_floats(values) for values in models], dtype=np.float64)


def _p_value(difference: Estimate) -> float | None:
    if difference.stderr is None or difference.value is None:
        return None
    if difference.stderr == 0:  # the test divides by it: no spread leaves no doubt either way
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * special.stdtr(difference.n - 1, -abs(difference.value / difference.stderr)))


def _exp(value: float | None) -> float | None:
    try:
        return None if value is None else exp(value)
    except OverflowError:
        return None


__all__ = [
    "paired_log_ratio",
    "paired_log_ratios",
    "perplexities_from_nll",
    "perplexity_from_nll",
]
