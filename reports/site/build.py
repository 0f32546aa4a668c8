"""Builds a site: reads the records, ranks them, and writes one page after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.site.boards.board import Boards
from reports.site.boards.scoring import boards_of
from reports.site.downloads import CSV_PATH, JSON_PATH, as_csv, as_json
from reports.site.feed import PATH as FEED_PATH
from reports.site.feed import feed
from reports.site.files.folder import SiteError, SiteFolder
from reports.site.files.links import record_file, record_page, record_stem
from reports.site.files.listing import cut, numbered
from reports.site.files.render import STYLE_PATH, render, style
from reports.site.pages.history import history_pages
from reports.site.pages.listings import listings
from reports.site.pages.overview import overview
from reports.site.pages.record_page import record_page_of
from reports.site.records.site_record import Holdings, read_holdings, whole


@dataclass(frozen=True)
class BuiltSite:
    """The result of a build.

    Attributes:
        index: path of the first page.
        n_records: number of records with a page.
        n_ranked: number of records on a board, without dense ones.
        n_set_apart: number of records that failed, are inconsistent, or had other results when run again.
        n_unreadable: number of files that are not valid records.
        n_files: number of files of the site.
        n_removed: number of files of an earlier build that were removed.
    """

    index: Path
    n_records: int
    n_ranked: int
    n_set_apart: int
    n_unreadable: int
    n_files: int
    n_removed: int


def build_site(
    paths: Sequence[Path],
    out: Path,
    *,
    title: str,
    reruns: Sequence[Path] = (),
    panel: Sequence[str] = (),
    url: str | None = None,
) -> BuiltSite:
    """Builds the site of all records below `paths`.

    Args:
        paths: folders with records at any depth, or single record files.
        out: the site's folder: a new one, an empty one, or that of an earlier build.
        title: title of the site.
        reruns: folders written by `prunebench verify --rerun --keep`.
        panel: the models that count on every board; if empty, those that are measured on it.
        url: address of the published site, for the feed; if None, its links are relative.

    Raises:
        SiteError: a folder does not exist, `out` contains other files, or a record changed meanwhile.
    """
    holdings = read_holdings(paths, reruns)
    _check_names(holdings)
    boards = boards_of(holdings.ranked, panel)
    base = f"{url.rstrip('/')}/" if url else None
    folder = SiteFolder(out)
    n_files, n_removed = folder.fill(_files(holdings, boards, title, base))
    return BuiltSite(
        index=out / "index.html",
        n_records=len(holdings.records),
        n_ranked=sum(board.n_records for board in boards.boards),
        n_set_apart=len(holdings.records) - len(holdings.ranked),
        n_unreadable=len(holdings.unreadable),
        n_files=n_files,
        n_removed=n_removed,
    )


def _files(holdings: Holdings, boards: Boards, title: str, url: str | None) -> Iterator[tuple[str, str]]:
    """Yields every file of the site, each generated on demand."""

    def shown(template: str, path: str, heading: str, section: str, page: object) -> tuple[str, str]:
        return path, render(template, path, page, site=title, title=heading, section=section)

    yield STYLE_PATH, style()
    for held in holdings.records:
        record, data = whole(held)
        page = record_page_of(held, record)
        yield shown("record.html.j2", record_page(held.digest), page.title, "records", page)
        yield record_file(held.digest), data.decode()
    for listing in listings(holdings, boards):
        for part in cut(listing):
            heading = numbered(listing.title, part.number)
            yield shown("listing.html.j2", part.path, heading, listing.section, part)
    for series in history_pages(holdings.ranked):
        heading = numbered("History", series.number)
        yield shown("history.html.j2", series.path, heading, "history", series)
    yield CSV_PATH, as_csv(holdings.records)
    yield JSON_PATH, as_json(holdings.records)
    yield FEED_PATH, feed(holdings.records, title=title, url=url)
    # Written last, so that it never links to missing pages.
    yield shown("index.html.j2", "index.html", title, "boards", overview(holdings, boards))


def _check_names(holdings: Holdings) -> None:
    """Raises an error if two records would have the same page."""
    taken: dict[str, Path] = {}
    for held in holdings.records:
        other = taken.setdefault(record_stem(held.digest), held.path)
        if other != held.path:
            raise SiteError(f"{held.path}: its digest begins like that of {other}, and so their pages meet")
