"""A series over time as a small drawing: a point a record, lines through what compares, changes large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from reports.wording import ARROWS, counted, decimal, interval, probability, visible
from suite.results.history.changes import Change, Outlier
from suite.results.history.series import Point, Segment, Series

POINTS_SHOWN = 100
"""Of a series, the latest ones."""
WIDTH, HEIGHT, EDGE = 400, 120, 8
"""Of a drawing, in its own units."""
PLACES = 3

_TITLES = {"perplexity": "Perplexity", "kl_divergence": "KL divergence", "prune_seconds": "Prune time"}
_UNITS = {"kl_divergence": "nats a token", "prune_seconds": "s"}


@dataclass(frozen=True)
class Dot:
    """A point of a drawing."""

    x: float
    y: float
    title: str
    is_change: bool


@dataclass(frozen=True)
class Drawing:
    """A series as a line with its changes marked.

    Attributes:
        title: the metric, and which way is better.
        about: its protocol and unit.
        lines: of each comparable stretch, the points of a polyline.
        dots: a point a record.
        told: what changed, a sentence each.
        low: the lowest value drawn.
        high: the highest.
        is_marked: whether anything changed.
        is_level: whether there is nothing to see: all values comparable and within the tolerance.
    """

    title: str
    about: str
    lines: tuple[str, ...]
    dots: tuple[Dot, ...]
    told: tuple[str, ...]
    low: str
    high: str
    is_marked: bool
    is_level: bool

    @property
    def view_box(self) -> str:
        """Of the SVG."""
        return f"0 0 {WIDTH} {HEIGHT}"


def drawing_of(series: Series) -> Drawing:
    """The latest points of a series, which must have one."""
    segments = [segment.points for segment in series.segments]
    shown = latest(series)
    changed = changed_records(series)
    low, high = min(p.value for p in shown), max(p.value for p in shown)
    is_within = high - low <= series.tolerance * abs(high)
    step = (WIDTH - 2 * EDGE) / max(1, len(shown) - 1)
    # Equal steps from record to record: bursts of runs and months without any both stay readable.
    places = {
        p.body_digest: (EDGE + step * n, _height(p.value, low, high, series.tolerance))
        for n, p in enumerate(shown)
    }
    lines = [
        " ".join("{:.1f},{:.1f}".format(*places[p.body_digest]) for p in points if p.body_digest in places)
        for points in segments
    ]
    dots = tuple(
        Dot(
            x=round(places[p.body_digest][0], 1),
            y=round(places[p.body_digest][1], 1),
            title=f"{p.created:%Y-%m-%d}: {decimal(p.value, PLACES)}",
            is_change=p.body_digest in changed,
        )
        for p in shown
    )
    said = [sentence for segment in series.segments for sentence in _told(series, segment)]
    return Drawing(
        title=title_of(series),
        about=about(series),
        lines=tuple(filter(None, lines)),
        dots=dots,
        told=tuple(said) or (_unchanged(series) if is_within else _unsure(len(shown), low, high),),
        low=decimal(low, PLACES),
        high=decimal(high, PLACES),
        is_marked=bool(changed),
        is_level=not said and is_within,
    )


def latest(series: Series) -> list[Point]:
    """The points that are drawn, in order of time."""
    points = chain.from_iterable(segment.points for segment in series.segments)
    return sorted(points, key=lambda point: (point.created, point.body_digest))[-POINTS_SHOWN:]


def changed_records(series: Series) -> set[str]:
    """Digests of the records at which it changed."""
    return {
        segment.points[change.at].body_digest
        for segment in series.segments
        for change in segment.findings.changes
    }


def title_of(series: Series) -> str:
    """The metric as a heading has it."""
    title = visible(_TITLES.get(series.metric, series.metric))
    return f"{title} {ARROWS[series.direction]}".strip()


def about(series: Series) -> str:
    """Protocol and unit of a series."""
    unit = series.unit or _UNITS.get(series.metric, "")
    return visible(", ".join(part for part in (series.protocol, unit) if part))


def allowed(tolerance: float) -> str:
    """A relative change that is too small to be marked: `1 %`."""
    return f"{100 * tolerance:g}\u00a0%"


def _height(value: float, low: float, high: float, tolerance: float) -> float:
    # What is too little to matter is not blown up to the full height.
    span = max(high - low, tolerance * abs(high), 1e-12)
    return HEIGHT / 2 - (HEIGHT - 2 * EDGE) * (value - (high + low) / 2) / span


def _unchanged(series: Series) -> str:
    return f"No change beyond {allowed(series.tolerance)}."


def _unsure(n: int, low: float, high: float) -> str:
    # Nothing is a share of zero, or of what is below it.
    apart = f"{100 * (high - low) / low:,.1f}\u00a0%" if low > 0 else f"{high - low:.3g}"
    return f"Nothing is sure yet: {counted(n, 'record')}, highest and lowest differ by {apart}."


def _told(series: Series, segment: Segment) -> list[str]:
    said = []
    if segment.reason:
        said.append(
            f"Not comparable from {segment.points[0].created:%Y-%m-%d} on: {visible(segment.reason)}."
        )
    said += [_of_change(series, segment, change) for change in segment.findings.changes]
    said += [_of_outlier(segment, outlier) for outlier in segment.findings.outliers]
    return said


def _of_change(series: Series, segment: Segment, change: Change) -> str:
    at = segment.points[change.at]
    better = series.is_better(change.before, change.after)
    verdict = {True: "better", False: "worse", None: "neither better nor worse"}[better]
    relative = "" if change.relative is None else f" ({100 * change.relative:+.1f}\u00a0%)"
    return (
        f"{change.kind.capitalize()} at {at.created:%Y-%m-%d}, {visible(at.version)}: "
        f"{decimal(change.before, PLACES)} to {decimal(change.after, PLACES)}{relative}, {verdict}, "
        f"{probability(change.p_value)}."
    )


def _of_outlier(segment: Segment, outlier: Outlier) -> str:
    at = segment.points[outlier.index]
    edge = f"; it is the {outlier.edge} value, so a change is not ruled out" if outlier.edge else ""
    return (
        f"Outlier at {at.created:%Y-%m-%d}, {visible(at.version)}: {decimal(outlier.value, PLACES)}, "
        f"expected {decimal(outlier.expected, PLACES)}{edge}."
    )


def spread_of(point: Point) -> str:
    """What qualifies a value: its interval over items, and how many these are."""
    n = "one run" if point.n is None else f"n = {point.n:,}"
    return ", ".join(part for part in (interval(point.low, point.high, PLACES), n) if part)
