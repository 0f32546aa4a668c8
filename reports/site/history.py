"""The history page: cells that were measured more than once, and where their perplexity changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from reports.site.holdings import Held
from reports.site.links import further_page, record_page
from reports.tables import Heading, Table, TableCell
from reports.wording import MISSING, counted, decimal, interval, probability, visible
from suite.results.archive import Archive, dated_record
from suite.results.changes import Change, Outlier
from suite.results.history import Point, Segment, Series, history_of

METRIC = "perplexity"
PATH = "history.html"
SERIES_A_PAGE = 20
POINTS_SHOWN = 100
"""Of a series, the latest ones, in the drawing and in the table."""
WIDTH, HEIGHT, EDGE = 640, 120, 8
"""Of a drawing, in its own units."""


@dataclass(frozen=True)
class Dot:
    """A point of a drawing."""

    x: float
    y: float
    title: str
    is_change: bool


@dataclass(frozen=True)
class Drawn:
    """A series as a line with its changes marked, and as a table.

    Attributes:
        heading: the cell and the protocol.
        lines: of each comparable stretch, the points of a polyline.
        dots: a point a record.
        told: what changed, a sentence each.
        table: the points.
        low: the lowest value drawn.
        high: the highest.
        is_marked: whether anything changed.
    """

    heading: str
    lines: tuple[str, ...]
    dots: tuple[Dot, ...]
    told: tuple[str, ...]
    table: Table
    low: str
    high: str
    is_marked: bool


@dataclass(frozen=True)
class HistoryPage:
    """One page of series.

    Attributes:
        path: below the root.
        number: 1 is the first.
        paths: of all pages.
        series: those on it, the changed ones first.
        n_once: cells that were measured once, which have no history yet.
    """

    path: str
    number: int
    paths: tuple[str, ...]
    series: tuple[Drawn, ...]
    n_once: int


def history_pages(ranked: Sequence[Held]) -> list[HistoryPage]:
    """The pages of what was measured more than once; one page that says so where nothing was."""
    pages = {held.path: record_page(held.digest) for held in ranked}
    series = _series(ranked)
    several = [one for one in series if sum(len(segment.points) for segment in one.segments) > 1]
    n_once = len({one.digest for one in series} - {one.digest for one in several})
    drawn = [_drawn(one, pages) for one in several]
    drawn.sort(key=lambda one: (not one.is_marked, one.heading))
    chunks = [drawn[i : i + SERIES_A_PAGE] for i in range(0, len(drawn), SERIES_A_PAGE)] or [[]]
    paths = tuple(further_page(PATH, number) for number in range(1, len(chunks) + 1))
    return [
        HistoryPage(path, number, paths, tuple(chunk), n_once)
        for number, (path, chunk) in enumerate(zip(paths, chunks, strict=True), 1)
    ]


def _series(ranked: Sequence[Held]) -> tuple[Series, ...]:
    measured = [held for held in ranked if held.record.metric(METRIC) is not None]
    if not measured:
        return ()
    # By the digest in the file, which a migration does not move.
    dated = [
        replace(dated_record(h.path, h.record), body_digest=h.digest, created=h.created) for h in measured
    ]
    records = sorted(dated, key=lambda record: (record.created, record.body_digest))
    return history_of(Archive(tuple(records), ()), METRIC)


def _drawn(series: Series, pages: dict[Path, str]) -> Drawn:
    segments = [segment.points for segment in series.segments]
    shown = sorted(chain(*segments), key=lambda point: point.created)[-POINTS_SHOWN:]
    changed = {
        segment.points[change.at].body_digest
        for segment in series.segments
        for change in segment.findings.changes
    }
    low, high = min(p.value for p in shown), max(p.value for p in shown)
    places = {point.body_digest: _place(point, shown, low, high) for point in shown}
    lines = [
        " ".join("{:.1f},{:.1f}".format(*places[p.body_digest]) for p in points if p.body_digest in places)
        for points in segments
    ]
    dots = tuple(
        Dot(*places[p.body_digest], f"{p.created:%Y-%m-%d}: {decimal(p.value, 3)}", p.body_digest in changed)
        for p in shown
    )
    heading = f"{visible(series.label)}, {visible(series.protocol)}"
    told = [sentence for segment in series.segments for sentence in _told(series, segment)]
    return Drawn(
        heading=heading,
        lines=tuple(filter(None, lines)),
        dots=dots,
        told=tuple(told) or ("No change beyond the tolerance.",),
        table=_table(heading, series, shown, changed, pages),
        low=decimal(low, 3),
        high=decimal(high, 3),
        is_marked=bool(changed),
    )


def _place(point: Point, shown: Sequence[Point], low: float, high: float) -> tuple[float, float]:
    """Equal steps from record to record: bursts of runs and months without any both stay readable."""
    step = (WIDTH - 2 * EDGE) / max(1, len(shown) - 1)
    # What differs by less than a thousandth is drawn as level, not blown up to the full height.
    span = max(high - low, 1e-3 * abs(high), 1e-12)
    middle = (high + low) / 2
    x = EDGE + step * shown.index(point)
    y = HEIGHT / 2 - (HEIGHT - 2 * EDGE) * (point.value - middle) / span
    return round(x, 1), round(y, 1)


def _told(series: Series, segment: Segment) -> list[str]:
    told = []
    if segment.reason:
        told.append(
            f"Not comparable from {segment.points[0].created:%Y-%m-%d} on: {visible(segment.reason)}."
        )
    told += [_of_change(series, segment, change) for change in segment.findings.changes]
    told += [_of_outlier(segment, outlier) for outlier in segment.findings.outliers]
    return told


def _of_change(series: Series, segment: Segment, change: Change) -> str:
    at = segment.points[change.at]
    better = series.is_better(change.before, change.after)
    verdict = {True: "better", False: "worse", None: "neither better nor worse"}[better]
    relative = "" if change.relative is None else f" ({100 * change.relative:+.1f} %)"
    return (
        f"{change.kind.capitalize()} at {at.created:%Y-%m-%d}, {visible(at.version)}: "
        f"{decimal(change.before, 3)} to {decimal(change.after, 3)}{relative}, {verdict}, "
        f"{probability(change.p_value)}."
    )


def _of_outlier(segment: Segment, outlier: Outlier) -> str:
    at = segment.points[outlier.index]
    edge = f"; it is the {outlier.edge} value, so a change is not ruled out" if outlier.edge else ""
    return (
        f"Outlier at {at.created:%Y-%m-%d}, {visible(at.version)}: {decimal(outlier.value, 3)}, "
        f"expected {decimal(outlier.expected, 3)}{edge}."
    )


def _table(
    heading: str, series: Series, shown: Sequence[Point], changed: set[str], pages: dict[Path, str]
) -> Table:
    headings = (
        Heading("Made", "UTC", numeric=False),
        Heading("Perplexity ↓", "95\u00a0% interval\nlower is better"),
        Heading("n", "windows"),
        Heading("Version", numeric=False),
    )
    rows = tuple(
        (
            TableCell(f"{p.created:%Y-%m-%d %H:%M}", link=pages.get(p.path, "")),
            TableCell(
                decimal(p.value, 3),
                interval(p.low, p.high, 3) or "no interval",
                "change" if p.body_digest in changed else "",
            ),
            TableCell(MISSING if p.n is None else f"{p.n:,}"),
            TableCell(visible(p.version)),
        )
        for p in reversed(shown)
    )
    absent = f", {counted(len(series.absent), 'record')} without a value" if series.absent else ""
    return Table(f"{heading}{absent}", headings, rows)
