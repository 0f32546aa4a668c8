"""The history of a metric as lines of text and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from suite.results.history.changes import Change, Outlier
from suite.results.history.series import Point, Segment, Series
from suite.results.wording import number

WIDTH = 48
"""Largest length of a sparkline in characters; a longer series is drawn as medians of neighbouring values."""


@dataclass(frozen=True)
class Signs:
    """The characters to draw with: `UNICODE`, or `ASCII` if the output cannot show those.

    The number of levels is odd, so that a constant series is drawn on the middle level.
    """

    levels: str
    arrow: str


UNICODE = Signs(levels="▁▂▃▄▅▆▇", arrow="→")
ASCII = Signs(levels="_.-=+*#", arrow="->")


def signs_for(encoding: str | None) -> Signs:
    """Returns `UNICODE` if the encoding has its characters, else `ASCII`."""
    try:
        (UNICODE.levels + UNICODE.arrow).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def as_lines(series: Sequence[Series], signs: Signs = UNICODE) -> Iterator[str]:
    """Yields a heading, and one line per series with its sparkline, followed by the findings in the series.

    Args:
        series: series of one metric, at least one.
        signs: the characters to draw with.
    """
    first = series[0]
    better = "" if first.direction == "none" else f", {first.direction} is better"
    yield f"{first.metric}{better}; changes beyond {first.tolerance:.2%} are marked"
    rows = [_row(one, signs) for one in series]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for one, row in zip(series, rows, strict=True):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        yield from (f"    {line}" for line in _findings(one, signs))


def as_json_rows(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Returns one row per series: what it shows, and its segments with their points, changes and outliers."""
    return [
        {
            "label": one.label,
            "cell": one.cell.model_dump(mode="json"),
            "digest": one.digest,
            "metric": one.metric,
            "protocol": one.protocol,
            "unit": one.unit,
            "direction": one.direction,
            "tolerance": one.tolerance,
            "segments": [_segment_json(one, segment) for segment in one.segments],
            "absent": [
                {"created": a.created.isoformat(), "path": str(a.path), "status": a.status}
                for a in one.absent
            ],
        }
        for one in series
    ]


def sparkline(values: Sequence[float], tolerance: float, signs: Signs = UNICODE) -> str:
    """Draws values as a row of blocks.

    Args:
        values: the values in order; if there are more than `WIDTH`, medians of neighbours are drawn.
        tolerance: relative change that does not matter; smaller changes are drawn nearly flat, so that noise
            does not fill the full height.
        signs: the characters to draw with.
    """
    if len(values) > WIDTH:
        edges = [round(place * len(values) / WIDTH) for place in range(WIDTH + 1)]
        values = [median(values[a:b]) for a, b in pairwise(edges)]
    if not values:
        return ""
    low, high = min(values), max(values)
    middle = low / 2 + high / 2
    # Halved before subtracting, as the difference of two huge values may overflow.
    reach = max(high / 2 - low / 2, 2 * tolerance * abs(middle))
    top = len(signs.levels) - 1
    if reach == 0:
        return signs.levels[top // 2] * len(values)
    return "".join(signs.levels[round(top * (0.5 + (value - middle) / reach / 2))] for value in values)


def _row(series: Series, signs: Signs) -> tuple[str, ...]:
    segments = series.segments
    n = sum(len(segment.points) for segment in segments)
    ends = " | ".join(_ends(segment, signs) for segment in segments)
    latest = max((point for s in segments for point in s.points), key=lambda p: p.created, default=None)
    drawn = " | ".join(
        sparkline([point.value for point in segment.points], series.tolerance, signs) for segment in segments
    )
    shown = f"{ends} {series.unit}".strip() if n else "no value"
    return (
        series.label,
        series.protocol,
        f"{n} point{'' if n == 1 else 's'}",
        shown,
        _interval(latest) if latest else "",
        drawn,
    )


def _ends(segment: Segment, signs: Signs) -> str:
    first, last = number(segment.points[0].value), number(segment.points[-1].value)
    return last if len(segment.points) == 1 else f"{first} {signs.arrow} {last}"


def _interval(point: Point) -> str:
    n = "" if point.n is None else f"n = {point.n}"
    if point.low is None or point.high is None:
        return f"({n})" if n else ""
    return f"(last {number(point.low)} to {number(point.high)}{', ' if n else ''}{n})"


def _findings(series: Series, signs: Signs) -> Iterator[str]:
    for segment in series.segments:
        if segment.reason:
            yield f"| from {_place(segment.points[0])}: not comparable with earlier records: {segment.reason}"
        found = segment.findings
        lines = [(c.at, _change_line(series, segment, c, signs)) for c in found.changes]
        lines += [(o.index, _outlier_line(series, segment, o)) for o in found.outliers]
        yield from (line for _, line in sorted(lines))
    for status in dict.fromkeys(absence.status for absence in series.absent):
        times = [a.created for a in series.absent if a.status == status]
        span = f"{times[0]:%Y-%m-%d}" if len(times) == 1 else f"{len(times)} times, last {times[-1]:%Y-%m-%d}"
        yield f"no value ({span}): {status}"


def _change_line(series: Series, segment: Segment, change: Change, signs: Signs) -> str:
    points = segment.points
    levels = f"{number(change.before)} {signs.arrow} {number(change.after)}"
    size = _size(change.relative, series.is_better(change.before, change.after))
    if change.kind == "drift":
        since = f"gradual since {_place(points[change.start])}"
        return f"{_place(points[change.at])}: drift {levels} ({size}), {since}"
    new = _news(points[change.start], points[change.at], signs)
    return f"{_place(points[change.at])}: step {levels} ({size}), after {_place(points[change.start])}{new}"


def _outlier_line(series: Series, segment: Segment, outlier: Outlier) -> str:
    size = _size(outlier.relative, series.is_better(outlier.expected, outlier.value))
    what = {
        "": "outlier",
        "first": "the first value is unlike the others:",
        "last": "the last value is unlike the others, the next run will show whether it stays:",
    }[outlier.edge]
    found = f"{what} {number(outlier.value)}, {number(outlier.expected)} was expected ({size})"
    return f"{_place(segment.points[outlier.index])}: {found}"


def _news(before: Point, after: Point, signs: Signs) -> str:
    """Describes what else changed at a step: the code, or packages on which results depend."""
    old = dict(before.packages)
    new = [
        f"{name} {old[name]} {signs.arrow} {version}"
        for name, version in after.packages
        if name in old and old[name] != version
    ]
    if before.source_digest == after.source_digest:
        new.insert(0, "the code that decides numbers is the same")
    return f"; {', '.join(new)}" if new else ""


def _place(point: Point) -> str:
    return f"{point.created:%Y-%m-%d} {point.version}"


def _size(relative: float | None, better: bool | None) -> str:
    size = "from 0" if relative is None else f"{relative:+.1%}"
    return size if better is None else f"{size}, {'better' if better else 'worse'}"


def _segment_json(series: Series, segment: Segment) -> dict[str, Any]:
    points, found = segment.points, segment.findings
    return {
        "reason": segment.reason,
        "noise": found.noise,
        "points": [_point_json(point) for point in points],
        "changes": [
            {
                "kind": change.kind,
                "first_after": _point_json(points[change.at]),
                # For a step the last point before it, for a drift its first point.
                "since": _point_json(points[change.start]),
                "before": change.before,
                "after": change.after,
                "relative": change.relative,
                "better": series.is_better(change.before, change.after),
                "p_value": change.p_value,
            }
            for change in found.changes
        ],
        "outliers": [
            {
                "point": _point_json(points[outlier.index]),
                "expected": outlier.expected,
                "relative": outlier.relative,
                "better": series.is_better(outlier.expected, outlier.value),
                "edge": outlier.edge,
            }
            for outlier in found.outliers
        ],
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        **asdict(point),
        "created": point.created.isoformat(),
        "path": str(point.path),
        "packages": dict(point.packages),
    }


__all__ = ["ASCII", "UNICODE", "Signs", "as_json_rows", "as_lines", "signs_for", "sparkline"]
