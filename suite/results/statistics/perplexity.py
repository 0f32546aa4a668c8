"""Perplexities with intervals from window losses, and perplexity ratios of two models on the same windows.

Perplexity is the exponential of a mean, so its interval is computed on the log scale and exponentiated; it is
not symmetric. Windows are treated as independent, which neighbouring windows of a text are not entirely. This
makes intervals of single models slightly too narrow, but hardly affects paired ones, because what neighbours
have in common cancels out.
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
    """Returns the perplexity exp(mean NLL) with its interval.

    Args:
        window_nll: `[n_windows]`, the mean NLL in nats of the predicted tokens of each window; all windows
            have equally many.
        confidence: confidence level of the interval.

    Returns:
        The estimate. The interval is the exponential of the Student t interval of the mean NLL; the standard
        error is that of the delta method, perplexity times the standard error of the mean NLL.
    """
    return perplexities_from_nll([window_nll], confidence=confidence)[0]


def perplexities_from_nll(models_nll: Sequence[Values], *, confidence: float = CONFIDENCE) -> list[Estimate]:
    """Computes `perplexity_from_nll` of several models at once, in little more time than for one model.

    Args:
        models_nll: `[n_models, n_windows]`, in nats.
        confidence: confidence level of the intervals.
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
    """Returns the perplexity of a divided by that of b, from both models' losses on the same windows.

    The differences a - b are tested with the paired Student t test; the ratio and its interval are the
    exponentials of their mean and of its interval.

    Args:
        a_nll: `[n_windows]`, in nats.
        b_nll: `[n_windows]`, for the same windows in the same order.
        confidence: confidence level of the interval.

    Raises:
        ValueError: the two models have different numbers of windows.
    """
    return paired_log_ratios([a_nll], b_nll, confidence=confidence)[0]


def paired_log_ratios(
    models_nll: Sequence[Values], base_nll: Values, *, confidence: float = CONFIDENCE
) -> list[PairedEstimate]:
    """Computes `paired_log_ratio` of several models to one base, in little more time than for one model.

    Args:
        models_nll: `[n_models, n_windows]`, in nats.
        base_nll: `[n_windows]`, for the same windows in the same order.
        confidence: confidence level of the intervals.

    Raises:
        ValueError: a model and the base have different numbers of windows.
    """
    base = as_floats(base_nll)
    for nll in models_nll:
        if len(nll) != len(base):
            raise ValueError(f"{len(nll)} windows cannot be paired with {len(base)}")
    rows = _rows(models_nll)
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite get a status
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
    """Stacks the values of all models to `[n_models, n_items]`."""
    return np.array([as_floats(values) for values in models], dtype=np.float64)


def _p_value(difference: Estimate) -> float | None:
    if difference.stderr is None or difference.value is None:
        return None
    if difference.stderr == 0:  # the test would divide by 0; without spread the result is certain
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
