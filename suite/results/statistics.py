"""Point estimates with intervals, and paired comparison of two models on the same items.

All intervals are Student t, on means. Perplexity is the exponential of a mean, so its interval is formed on
the log scale and carried over; it is not symmetric. Windows are treated as independent draws, which
neighbours in one text are not quite: intervals of single models are a little too narrow for it, paired
ones hardly, because what neighbours share cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, sqrt

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = Sequence[float | None] | npt.NDArray[np.floating]
"""One number an item; None (or NaN, infinity) where an item has none."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Attributes:
        value: None where it could not be had; `status` says why.
        stderr: its standard error; None from a single item, or beyond the range of floats.
        low: lower end of the interval; None likewise.
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
    """A ratio of two models' perplexities on the same windows.

    Attributes:
        ratio: of the first to the second; above 1 the first is worse. None where it could not be had.
        low: lower end of the interval; None from a single window, or beyond the range of floats.
        high: upper end; None likewise.
        p_value: two-sided, of the ratio being 1; None from a single window.
        n: pairs of windows.
        status: `ok`, or why there is no ratio.
    """

    ratio: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    status: str = "ok"


def mean_stderr(values: Values, *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent items, its standard error s / sqrt(n), and its Student t interval.

    Args:
        values: `[n]`. A single item gives a mean without an interval; an item that is not finite, or no
            item at all, gives no value and a status.
        confidence: of the interval.
    """
    found = _floats(values)
    n = len(found)
    problem = _problem(found)
    if problem is not None:
        return Estimate(None, None, None, None, n, problem)
    # Scaled, so that the sums behind mean and spread cannot overflow.
    scale = float(np.max(np.abs(found))) or 1.0
    scaled = found / scale
    mean = float(np.mean(scaled)) * scale
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    stderr = float(np.std(scaled, ddof=1)) * scale / sqrt(n)
    reach = stderr * float(stats.t.ppf((1 + confidence) / 2, n - 1))
    return Estimate(mean, _finite(stderr), _finite(mean - reach), _finite(mean + reach), n)


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
    log = mean_stderr(window_nll, confidence=confidence)
    if log.value is None:
        return log
    value = _exp(log.value)
    if value is None:
        return Estimate(None, None, None, None, log.n, f"overflow: exp of a mean NLL of {log.value:.6g}")
    if log.stderr is None:
        return Estimate(value, None, None, None, log.n)
    return Estimate(value, _finite(value * log.stderr), _exp(log.low), _exp(log.high), log.n)


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
    a, b = _floats(a_nll), _floats(b_nll)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} windows cannot be paired with {len(b)}")
    problem = _problem(np.concatenate([a, b]))
    if problem is not None:
        return PairedEstimate(None, None, None, None, len(a), problem)
    differences = a - b
    log = mean_stderr(differences, confidence=confidence)
    ratio = _exp(log.value)
    if ratio is None:
        return PairedEstimate(None, None, None, None, len(a), "overflow: the losses are too far apart")
    return PairedEstimate(ratio, _exp(log.low), _exp(log.high), _p_value(log), len(a))


def _p_value(difference: Estimate) -> float | None:
    if difference.stderr is None or difference.value is None:
        return None
    if difference.stderr == 0:  # the test divides by it: no spread leaves no doubt either way
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.value / difference.stderr), difference.n - 1))


def _floats(values: Values) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _problem(values: npt.NDArray[np.float64]) -> str | None:
    if len(values) == 0:
        return "no items"
    bad = int(np.sum(~np.isfinite(values)))
    return f"not finite: {bad} of {len(values)} items" if bad else None


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _exp(value: float | None) -> float | None:
    try:
        return None if value is None else exp(value)
    except OverflowError:
        return None


__all__ = [
    "CONFIDENCE",
    "Estimate",
    "PairedEstimate",
    "mean_stderr",
    "paired_log_ratio",
    "perplexity_from_nll",
]
