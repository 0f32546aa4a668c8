"""Where one number, measured again and again, changed for good, drifted away, or was odd a single time.

A change is marked where it is both large (beyond a tolerance that says what matters) and sure (beyond what
the noise of the series makes). Three questions are asked in turn:

1. Is a single value unlike those before and after it? It is an outlier, and takes no further part. The first
   and the last value can be no more than that: whether a new level begins there, the next run will tell.
2. Does the level change at once? The cuts are the exact optimum of the summed squares with a penalty of
   2 sigma^2 log(n) a cut, found by PELT (Y.-C. Yao, Estimating the number of change-points via Schwarz'
   criterion, 1988: a cut costs two parameters, its place and its level). A cut counts if the levels on its
   two sides pass Student's t test, its p-value multiplied by the number of places a cut could have had.
3. Does a stretch without such a change still end elsewhere than it began? Then Kendall's rank test says
   whether the way there was a trend: steps too small to be marked one by one add up to a drift.

Noise is estimated from the differences of neighbours, which a change of level touches in one place only. A
series that repeats itself to the bit has none, so its steps are certain. Neighbours are taken for
independent; where they are not (a machine that stays warm), noise is underestimated, and the tolerance has
to hold.
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
"""How often noise alone may make a series show a change, or an outlier, or a drift."""

_SHORTEST = 2
"""Values on either side of a change; one alone is an outlier."""
_NEIGHBOURS = 4
"""Values before a suspect, and after it, that say what was to be expected."""
_SHORTEST_DRIFT = 6
"""Five values cannot be sure at `ALPHA`, even where each is above the one before."""


@dataclass(frozen=True)
class Change:
    """A change of level.

    Attributes:
        kind: `step`, from one value to the next; `drift`, by steps too small to be marked.
        start: index of the last value before a step, or of the first value of the stretch that drifts.
        at: index of the first value of the new level; of a drift, the first beyond the tolerance for good.
        before: level before: the mean up to the change before this one, or where the drift begins.
        after: level after: the mean up to the next change, or where the drift ends.
        relative: (after - before) / |before|; None from a level of 0.
        p_value: of no change, for a step corrected for having looked at every place.
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
    """A value unlike its neighbours.

    Attributes:
        index: which one.
        value: what it is.
        expected: the median of its neighbours.
        relative: (value - expected) / |expected|; None where 0 was expected.
        edge: `first` or `last` where it has neighbours on one side only, so that a change of level is not
            ruled out; empty elsewhere.
    """

    index: int
    value: float
    expected: float
    relative: float | None
    edge: Literal["", "first", "last"] = ""


@dataclass(frozen=True)
class Findings:
    """What was found in one series.

    Attributes:
        changes: in order of `at`.
        outliers: in order.
        noise: standard deviation of the values about their level.
    """

    changes: tuple[Change, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    noise: float = 0.0


def find_changes(values: Sequence[float], *, tolerance: float, alpha: float = ALPHA) -> Findings:
    """Looks for outliers, steps and drifts.

    Args:
        values: `[n]`, finite, in order of time. Fewer than three show nothing, fewer than four no step, and
            fewer than six no drift.
        tolerance: relative change that is too small to matter, e.g. 0.01.
        alpha: how often each of the three may be found where there is only noise.

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
    """(after - before) / |before|; None from 0, where no change is relative."""
    return None if before == 0 else (after - before) / abs(before)


def _noise(values: Floats) -> float:
    """Standard deviation of values about their level, from the median size of neighbours' differences.

    The lower of two middle ones is taken: in a short series, one outlier makes half the differences.
    """
    sizes = np.sort(np.abs(np.diff(values)))
    # A normal variable's median size is 0.6745 of its deviation; a difference has twice the variance.
    return float(sizes[(len(sizes) - 1) // 2]) / (0.6745 * sqrt(2))


def _beyond(before: float, after: float, tolerance: float) -> bool:
    return abs(after - before) > tolerance * abs(before)


def _outliers(values: Floats, noise: float, tolerance: float, alpha: float) -> list[Outlier]:
    """Values that stand apart from both sides by more than the sides do from one another."""
    from scipy import stats

    n = len(values)
    # Noise known from a median of n - 1 differences is as good as from 0.37 times as many squares.
    sure = float(stats.t.isf(alpha / (2 * n), max(2.0, 0.37 * (n - 1)))) * noise * sqrt(1 + 1 / _NEIGHBOURS)
    found: list[Outlier] = []
    for index, value in enumerate(values):
        left = values[max(0, index - _NEIGHBOURS) : index]
        right = values[index + 1 : index + 1 + _NEIGHBOURS]
        sides = [float(np.median(side)) for side in (left, right) if len(side)]
        # Its next neighbours too: the first value of a new level is unlike the past, and like what follows.
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
    """Indices of the first values after each marked step."""
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
        # One at a time, the smallest first: what it parted may together differ from what follows.
        del cuts[min(sizes)[1]]
    return cuts


def _optimal_cuts(level: Floats, noise: float, tolerance: float) -> list[int]:
    """Where stretches of one level each begin, but the first; none where a straight line explains more."""
    from ruptures import KernelCPD

    n = len(level)
    middle = float(np.median(level))
    # Shifts of a tenth of the tolerance are noise for this purpose, however sure they are.
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
    # Else a ramp would come out as a staircase, with changes at places where nothing happened.
    if float(np.sum((scaled - line) ** 2)) + penalty <= squares + penalty * len(cuts):
        return []
    return cuts


def _places(level: Floats) -> int:
    """In how many places a cut could be."""
    return max(1, len(level) - 2 * _SHORTEST + 1)


def _t_test(before: Floats, after: Floats, places: int) -> float:
    """Student's t test of equal levels with one variance, two-sided, corrected for `places` looked at."""
    from scipy import stats

    difference = abs(float(after.mean() - before.mean()))
    freedom = len(before) + len(after) - 2
    squares = float(np.sum((before - before.mean()) ** 2) + np.sum((after - after.mean()) ** 2))
    error = sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    if error == 0:  # no spread leaves no doubt either way
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
    # Levels of the two ends, not a fitted line's: they are what was measured there.
    end = max(2, n // 6)
    before, after = float(np.median(values[:end])), float(np.median(values[-end:]))
    if not _beyond(before, after, tolerance):
        return None
    trend = stats.kendalltau(np.arange(n), values)
    if not float(trend.pvalue) <= alpha or (float(trend.statistic) > 0) != (after > before):
        return None
    # For good: two more values must not take it back.
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
