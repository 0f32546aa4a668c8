"""A series over time as a small drawing: one point per record, lines between comparable ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from reports.wording import ARROWS, counted, decimal, interval, probability, visible
from suite.results.history.changes import Change, Outlier
from suite.results.history.series import Point, Segment, Series

POINTS_SHOWN = 100
"""Maximum number of points of a series, the latest ones."""
WIDTH, HEIGHT, EDGE = 400, 120, 8
"""Size and margin of a drawing, in SVG units."""
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

    title: the metric, and which direction is better.
    about: its protocol and unit.
    lines: one polyline, as a list of points, per comparable segment.
    dots: one point per record.
    told: the changes, one sentence each.
    low: the lowest value drawn.
    high: the highest value drawn.
    is_marked: whether anything changed.
    is_level: whether all values are comparable and within the tolerance.
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
        """The viewBox of the SVG."""
        return f"0 0 {WIDTH} {HEIGHT}"


def drawing_of(series: Series) -> Drawing:
    """Draws the latest points of a series, which must have at least one."""
    segments = [segment.points for segment in series.segments]
    shown = latest(series)
    changed = changed_records(series)
    low, high = min(p.value for p in shown), max(p.value for p in shown)
    is_within = high - low <= series.tolerance * abs(high)
    step = (WIDTH - 2 * EDGE) / max(1, len(shown) - 1)
    # Equal steps between records, so that both bursts of runs and long gaps stay readable.
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
    changes = [sentence for segment in series.segments for sentence in _told(series, segment)]
    return Drawing(
        title=title_of(series),
        about=about(series),
        lines=tuple(filter(None, lines)),
        dots=dots,
        told=tuple(changes) or (_unchanged(series) if is_within else _unsure(len(shown), low, high),),
        low=decimal(low, PLACES),
        high=decimal(high, PLACES),
        is_marked=bool(changed),
        is_level=not changes and is_within,
    )


def latest(series: Series) -> list[Point]:
    """Returns the points that are drawn, in order of time."""
    points = chain.from_iterable(segment.points for segment in series.segments)
    return sorted(points, key=lambda point: (point.created, point.body_digest))[-POINTS_SHOWN:]


def changed_records(series: Series) -> set[str]:
    """Returns the digests of the records at which the series changed."""
    return {
        segment.points[change.at].body_digest
        for segment in series.segments
        for change in segment.findings.changes
    }


def title_of(series: Series) -> str:
    """Returns the metric with an arrow, as used in headings."""
    title = visible(_TITLES.get(series.metric, series.metric))
    return f"{title} {ARROWS[series.direction]}".strip()


def about(series: Series) -> str:
    """Returns protocol and unit of a series."""
    unit = series.unit or _UNITS.get(series.metric, "")
    return visible(", ".join(part for part in (series.protocol, unit) if part))


def allowed(tolerance: float) -> str:
    """Formats a tolerance, the largest relative change that is not marked: `1 %`."""
    return f"{100 * tolerance:g}\u00a0%"


def _height(value: float, low: float, high: float, tolerance: float) -> float:
    # Changes below the tolerance must not fill the full height.
    span = max(high - low, tolerance * abs(high), 1e-12)
    return HEIGHT / 2 - (HEIGHT - 2 * EDGE) * (value - (high + low) / 2) / span


def _unchanged(series: Series) -> str:
    return f"No change beyond {allowed(series.tolerance)}."


def _unsure(n: int, low: float, high: float) -> str:
    # A percentage of zero or of a negative value is meaningless.
    apart = f"{100 * (high - low) / low:,.1f}\u00a0%" if low > 0 else f"{high - low:.3g}"
    return f"No certain change yet: {counted(n, 'record')}, highest and lowest differ by {apart}."


def _told(series: Series, segment: Segment) -> list[str]:
    sentences = []
    if segment.reason:
        sentences.append(
            f"Not comparable from {segment.points[0].created:%Y-%m-%d} on: {visible(segment.reason)}."
        )
    sentences += [_of_change(series, segment, change) for change in segment.findings.changes]
    sentences += [_of_outlier(segment, outlier) for outlier in segment.findings.outliers]
    return sentences


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
    """Returns the interval of a value over items, and the number of items."""
    n = "one run" if point.n is None else f"n = {point.n:,}"
    return ", ".join(part for part in (interval(point.low, point.high, PLACES), n) if part)
