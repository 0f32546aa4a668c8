"""The history page: cells that were measured more than once, and when their values changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.site.files.links import further_page, record_page
from reports.site.pages.drawing import (
    PLACES,
    POINTS_SHOWN,
    Drawing,
    about,
    allowed,
    changed_records,
    drawing_of,
    latest,
    spread_of,
    title_of,
)
from reports.site.records.site_record import SiteRecord
from reports.tables import Table, TableCell, numbers, words
from reports.wording import MISSING, better, decimal, visible
from suite.results.history.series import COST_TOLERANCE, QUALITY_TOLERANCE, Point, Series, history_of

PATH = "history.html"
DRAWINGS_A_PAGE = 24
"""Number of drawings after which the next cell begins another page."""


@dataclass(frozen=True)
class CellHistory:
    """All measurements of one cell over time.

    Attributes:
        heading: the cell.
        drawings: one per metric and protocol with something to see; those with changes first.
        level: names of the other series, which stayed within the tolerance.
        table: one row per record, with every metric.
    """

    heading: str
    drawings: tuple[Drawing, ...]
    level: tuple[str, ...]
    table: Table

    @property
    def is_marked(self) -> bool:
        """Whether anything changed."""
        return any(drawing.is_marked for drawing in self.drawings)


@dataclass(frozen=True)
class HistoryPage:
    """One page of cells.

    Attributes:
        path: its path below the root.
        number: number of the page, from 1.
        paths: paths of all pages.
        cells: the cells on it, changed ones first.
        n_once: number of cells that were measured only once and have no history yet.
    """

    path: str
    number: int
    paths: tuple[str, ...]
    cells: tuple[CellHistory, ...]
    n_once: int

    @property
    def tolerance(self) -> str:
        """The largest change of a quality value that is not marked."""
        return allowed(QUALITY_TOLERANCE)

    @property
    def time_tolerance(self) -> str:
        """The largest change of a time that is not marked."""
        return allowed(COST_TOLERANCE)


def history_pages(ranked: Sequence[SiteRecord]) -> list[HistoryPage]:
    """Returns the pages of cells that were measured more than once; one page saying so if there are none."""
    times = Counter(held.record.cell.digest for held in ranked)
    again = [held for held in ranked if times[held.record.cell.digest] > 1]
    pages = {held.path: record_page(held.digest) for held in again}
    by_cell: dict[str, list[Series]] = {}
    for series in _series(again):
        by_cell.setdefault(series.digest, []).append(series)
    cells = [_cell(series, pages) for series in by_cell.values()]
    cells.sort(key=lambda cell: (not cell.is_marked, cell.heading))
    chunks = _chunks(cells)
    paths = tuple(further_page(PATH, number) for number in range(1, len(chunks) + 1))
    n_once = sum(n == 1 for n in times.values())
    return [
        HistoryPage(path, number, paths, tuple(chunk), n_once)
        for number, (path, chunk) in enumerate(zip(paths, chunks, strict=True), 1)
    ]


def _series(again: Sequence[SiteRecord]) -> list[Series]:
    records = sorted(again, key=lambda held: (held.created, held.digest))
    found = [series for metric in _metrics(again) for series in history_of(records, metric)]
    return [one for one in found if sum(len(segment.points) for segment in one.segments) > 1]


def _metrics(again: Iterable[SiteRecord]) -> list[str]:
    """Lists the metrics that are tracked, if any record has them: quality first, then prune time."""
    scores = dict.fromkeys(task.metric for held in again for task in held.record.tasks)
    known = {metric.name for held in again for metric in held.record.metrics}
    names = dict.fromkeys(("perplexity", "kl_divergence", *scores, "prune_seconds"))
    return [name for name in names if name in known]


def _cell(series: Sequence[Series], pages: dict[Path, str]) -> CellHistory:
    heading = visible(series[0].label)
    drawings = sorted(map(drawing_of, series), key=lambda one: not one.is_marked)
    # Many level lines would hide the one that changed. If all are level, show one of them.
    seen = [one for one in drawings if not one.is_level] or drawings[:1]
    level = tuple(f"{one.title} ({one.about})" for one in drawings if one not in seen)
    return CellHistory(heading, tuple(seen), level, _table(heading, series, pages))


def _chunks(cells: Sequence[CellHistory]) -> list[list[CellHistory]]:
    """Splits cells into pages with about the same number of drawings; a cell is never split."""
    chunks: list[list[CellHistory]] = [[]]
    drawn = 0
    for cell in cells:
        if drawn and drawn + len(cell.drawings) > DRAWINGS_A_PAGE:
            chunks.append([])
            drawn = 0
        chunks[-1].append(cell)
        drawn += len(cell.drawings)
    return chunks


def _table(heading: str, series: Sequence[Series], pages: dict[Path, str]) -> Table:
    """Builds a table of the records, newest first, with their values."""
    values = [({point.body_digest: point for point in latest(one)}, changed_records(one)) for one in series]
    records = {digest: point for points, _ in values for digest, point in points.items()}
    newest = sorted(records.values(), key=lambda p: (p.created, p.body_digest), reverse=True)[:POINTS_SHOWN]
    days = [
        TableCell(f"{p.created:%Y-%m-%d}", f"{p.created:%H:%M}", link=pages.get(p.path, "")) for p in newest
    ]
    columns = (
        words("Made", days, "UTC"),
        words("Version", [visible(point.version) for point in newest]),
        *(
            numbers(title_of(one), [_value(points.get(p.body_digest), changed) for p in newest], _detail(one))
            for one, (points, changed) in zip(series, values, strict=True)
        ),
    )
    return Table(f"{heading}: all values", columns)


def _detail(series: Series) -> str:
    return "\n".join(filter(None, (about(series), "95\u00a0% interval", better(series.direction))))


def _value(point: Point | None, changed: set[str]) -> TableCell:
    if point is None:
        return TableCell(MISSING)
    mark = "change" if point.body_digest in changed else ""
    return TableCell(decimal(point.value, PLACES), spread_of(point), mark)
