"""Finds lasting changes, drifts and outliers in a series of repeated measurements of one number.

A change is marked if it is both large (beyond a tolerance) and significant (beyond the noise of the series).
The search has three steps:

1. Outliers: a single value that differs from those before and after it is an outlier and is left out of the
   next steps. The first and the last value can only be outliers, because only further runs can show whether a
   new level begins there.
2. Steps: sudden changes of level. The cuts are the exact optimum of the sum of squares with a penalty of
   2 sigma^2 log(n) per cut, found by PELT (Y.-C. Yao, Estimating the number of change-points via Schwarz'
   criterion, 1988: a cut costs two parameters, its position and its level). A cut counts if the levels on its
   two sides pass Student's t test, with the p-value multiplied by the number of possible positions of a cut.
3. Drifts: if a stretch without steps ends at another level than it began, Kendall's rank test decides whether
   it has a trend: many steps that are too small to be marked add up to a drift.

Noise is estimated from the differences of neighbouring values, of which a change of level affects only one.
A series of bit-identical values has no noise, so all of its steps are certain. Neighbours are assumed to be
independent; if they are not (e.g. on a machine that stays warm), noise is underestimated, and only the
tolerance prevents false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALPHA = 0.01
"""Accepted probability that noise alone causes a change, an outlier, or a drift in a series."""

_SHORTEST = 2
"""Minimum number of values on either side of a change; a single value is an outlier."""
_NEIGHBOURS = 4
"""Number of values before and after a suspected outlier that give its expected value."""
_SHORTEST_DRIFT = 6
"""Minimum length of a drift: five values cannot be significant at `ALPHA`, even if they rise steadily."""


@dataclass(frozen=True)
class Change:
    """A change of level.

    Attributes:
        kind: `step`: from one value to the next; `drift`: by steps that are too small to be marked.
        start: index of the last value before a step, or of the first value of a drifting stretch.
        at: index of the first value of the new level; for a drift, the first value that is lastingly beyond
            the tolerance.
        before: level before: the mean since the previous change, or the level at the start of the drift.
        after: level after: the mean up to the next change, or the level at the end of the drift.
        relative: (after - before) / |before|; None if `before` is 0.
        p_value: p-value of no change; for a step, corrected for the number of positions tested.
    """

    kind: Literal["step", "drift"]
    start: int
    at: int
    before: float
    after: float
    relative: float | None
    p_value: float


@dataclass(frozen=True)
class Outlier:
    """A value that differs from its neighbours.

    Attributes:
        index: index of the value.
        value: the value.
        expected: the median of its neighbours.
        relative: (value - expected) / |expected|; None if `expected` is 0.
        edge: `first` or `last` if the value has neighbours on one side only, so that it may begin a new
            level; otherwise empty.
    """

    index: int
    value: float
    expected: float
    relative: float | None
    edge: Literal["", "first", "last"] = ""


@dataclass(frozen=True)
class Findings:
    """The changes and outliers in one series.

    Attributes:
        changes: steps and drifts, in order of `at`.
        outliers: outliers, in order of time.
        noise: standard deviation of the values around their level.
    """

    changes: tuple[Change, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    noise: float = 0.0


def find_changes(values: Sequence[float], *, tolerance: float, alpha: float = ALPHA) -> Findings:
    """Finds outliers, steps and drifts.

    Args:
        values: `[n]`, finite, in order of time. At least three values are needed to find anything, four to
            find a step, and six to find a drift.
        tolerance: relative change that is too small to matter, e.g. 0.01.
        alpha: accepted probability of finding each of the three in pure noise.

    Raises:
        ValueError: a value is not finite, or the tolerance is negative.
    """
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError("a series of finite values is needed")
    if not tolerance >= 0:
        raise ValueError(f"a tolerance is 0 or more, not {tolerance}")
    if len(found) < 3:
        return Findings()
    noise = _noise(found)
    outliers = _outliers(found, noise, tolerance, alpha)
    kept = np.delete(np.arange(len(found)), [outlier.index for outlier in outliers])
    level = found[kept]
    cuts = _steps(level, noise, tolerance, alpha)
    stretches = [slice(a, b) for a, b in pairwise([0, *cuts, len(level)])]
    changes = [_step(level, before, after, _places(level), kept) for before, after in pairwise(stretches)]
    for stretch in stretches:
        drift = _drift(level, stretch, tolerance, alpha, kept)
        if drift is not None:
            changes.append(drift)
    changes.sort(key=lambda change: change.at)
    return Findings(tuple(changes), tuple(outliers), noise)


def relative_change(before: float, after: float) -> float | None:
    """Returns (after - before) / |before|; None if `before` is 0."""
    return None if before == 0 else (after - before) / abs(before)


def _noise(values: Floats) -> float:
    """Estimates the standard deviation around the level from the median difference of neighbours.

    Takes the lower of two middle values, because in a short series one outlier causes half the differences.
    """
    sizes = np.sort(np.abs(np.diff(values)))
    # The median absolute value of a normal variable is 0.6745 of its standard deviation; a difference of two
    # has twice the variance.
    return float(sizes[(len(sizes) - 1) // 2]) / (0.6745 * sqrt(2))


def _beyond(before: float, after: float, tolerance: float) -> bool:
    return abs(after - before) > tolerance * abs(before)


def _outliers(values: Floats, noise: float, tolerance: float, alpha: float) -> list[Outlier]:
    """Finds values that differ from both sides by more than the sides differ from each other."""
    from scipy import stats

    n = len(values)
    # Noise from the median of n - 1 differences is as precise as from 0.37 (n - 1) squares.
    sure = float(stats.t.isf(alpha / (2 * n), max(2.0, 0.37 * (n - 1)))) * noise * sqrt(1 + 1 / _NEIGHBOURS)
    found: list[Outlier] = []
    for index, value in enumerate(values):
        left = values[max(0, index - _NEIGHBOURS) : index]
        right = values[index + 1 : index + 1 + _NEIGHBOURS]
        sides = [float(np.median(side)) for side in (left, right) if len(side)]
        # The nearest neighbours count too: the first value of a new level differs only from earlier values.
        near = [float(side) for side in (*left[-1:], *right[:1])]
        gaps = [float(value) - other for other in (*sides, *near)]
        reach = min(abs(gap) for gap in gaps)
        one_way = all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)
        expected = float(np.median(np.concatenate([left, right])))
        if not one_way or reach <= sure or not _beyond(expected, expected + reach, tolerance):
            continue
        if len(sides) == 2 and abs(sides[0] - sides[1]) >= reach:
            continue
        edge: Literal["", "first", "last"] = "" if len(sides) == 2 else "first" if index == 0 else "last"
        relative = relative_change(expected, float(value))
        found.append(Outlier(index, float(value), expected, relative, edge))
    return found


def _steps(level: Floats, noise: float, tolerance: float, alpha: float) -> list[int]:
    """Returns the indices of the first values after each marked step."""
    cuts = _optimal_cuts(level, noise, tolerance)
    while cuts:
        stretches = [slice(a, b) for a, b in pairwise([0, *cuts, len(level)])]
        sizes = []
        for place, (one, other) in enumerate(pairwise(stretches)):
            before, after = level[one], level[other]
            size = abs(float(after.mean() - before.mean()))
            p_value = _t_test(before, after, _places(level))
            if p_value > alpha or not _beyond(float(before.mean()), float(after.mean()), tolerance):
                sizes.append((size, place))
        if not sizes:
            break
        # Drop one cut at a time, the smallest first: the merged stretch may differ from the next one.
        del cuts[min(sizes)[1]]
    return cuts


def _optimal_cuts(level: Floats, noise: float, tolerance: float) -> list[int]:
    """Returns the starts of all stretches of one level but the first; none if a straight line fits better."""
    from ruptures import KernelCPD

    n = len(level)
    middle = float(np.median(level))
    # Shifts of less than a tenth of the tolerance are treated as noise, even if they are significant.
    scale = max(noise, tolerance * abs(middle) / 10, 1e-12 * float(np.max(np.abs(level), initial=0.0)))
    if n < 2 * _SHORTEST or scale == 0:
        return []
    scaled = (level - middle) / scale
    penalty = 2 * log(n)
    search = KernelCPD(kernel="linear", min_size=_SHORTEST).fit(scaled.reshape(-1, 1))
    cuts = [int(cut) for cut in search.predict(pen=penalty)][:-1]
    if not cuts:
        return []
    squares = sum(float(np.sum((part - part.mean()) ** 2)) for part in np.split(scaled, cuts))
    places = np.arange(n)
    line = np.polyval(np.polyfit(places, scaled, 1), places)
    # Otherwise a ramp would appear as a staircase, with steps at arbitrary positions.
    if float(np.sum((scaled - line) ** 2)) + penalty <= squares + penalty * len(cuts):
        return []
    return cuts


def _places(level: Floats) -> int:
    """Returns the number of possible positions of a cut."""
    return max(1, len(level) - 2 * _SHORTEST + 1)


def _t_test(before: Floats, after: Floats, places: int) -> float:
    """Returns the two-sided p-value of Student's t test with equal variances, multiplied by `places`."""
    from scipy import stats

    difference = abs(float(after.mean() - before.mean()))
    freedom = len(before) + len(after) - 2
    squares = float(np.sum((before - before.mean()) ** 2) + np.sum((after - after.mean()) ** 2))
    error = sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    if error == 0:  # without spread the result is certain
        return 1.0 if difference == 0 else 0.0
    return min(1.0, places * 2 * float(stats.t.sf(difference / error, freedom)))


def _step(level: Floats, one: slice, other: slice, places: int, kept: npt.NDArray[np.intp]) -> Change:
    before, after = float(level[one].mean()), float(level[other].mean())
    return Change(
        kind="step",
        start=int(kept[other.start - 1]),
        at=int(kept[other.start]),
        before=before,
        after=after,
        relative=relative_change(before, after),
        p_value=_t_test(level[one], level[other], places),
    )


def _drift(
    level: Floats, stretch: slice, tolerance: float, alpha: float, kept: npt.NDArray[np.intp]
) -> Change | None:
    from scipy import stats

    values = level[stretch]
    n = len(values)
    if n < _SHORTEST_DRIFT or float(np.ptp(values)) == 0:
        return None
    # The levels are medians at the two ends, not values of a fitted line, so that they are measured values.
    end = max(2, n // 6)
    before, after = float(np.median(values[:end])), float(np.median(values[-end:]))
    if not _beyond(before, after, tolerance):
        return None
    trend = stats.kendalltau(np.arange(n), values)
    if not float(trend.pvalue) <= alpha or (float(trend.statistic) > 0) != (after > before):
        return None
    # The change must last: the median of this value and the next two must also be beyond the tolerance.
    at = next(
        (
            i
            for i in range(n)
            if all(_beyond(before, v, tolerance) for v in (values[i], float(np.median(values[i : i + 3]))))
        ),
        n - 1,
    )
    return Change(
        kind="drift",
        start=int(kept[stretch.start]),
        at=int(kept[stretch.start + at]),
        before=before,
        after=after,
        relative=relative_change(before, after),
        p_value=float(trend.pvalue),
    )


__all__ = ["ALPHA", "Change", "Findings", "Outlier", "find_changes", "relative_change"]
