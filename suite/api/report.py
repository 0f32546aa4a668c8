"""Renders the comparison report of folders of records, as text or into a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import InputError

if TYPE_CHECKING:
    from suite.results.records.index import StoredRecord
    from suite.results.records.record import Record

ATTEMPTS = 5
"""How often reading the records is tried if another process replaces some of them meanwhile."""


def write_report(results: Sequence[Path], out: Path, *, title: str, only: Sequence[str] = ()) -> Path:
    """Renders the records below folders into one page.

    Args:
        results: the folders, searched at any depth.
        out: the page's file, which is replaced in one step.
        title: the page's heading.
        only: texts or globs that select the pruned cells to show; empty = all.

    Raises:
        InputError: there are no records, none matches `only`, or they changed during every attempt.
    """
    from suite.storage.files import replace_text

    page = render(results, title=title, only=only)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, page)
    return out


def render(results: Sequence[Path], *, title: str, only: Sequence[str] = ()) -> str:
    """Returns the HTML page of the records below folders.

    Args:
        results: the folders, searched at any depth.
        title: the page's heading.
        only: texts or globs that select the pruned cells to show; empty = all.

    Raises:
        InputError: there are no records, none matches `only`, or they changed during every attempt.
    """
    from suite.results.records.reading import RecordError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _render(results, title, only)
        except RecordError as error:  # another run writes into these folders: read its records as well
            if attempt == ATTEMPTS:
                raise InputError(f"{error}; run the command again") from None
    raise AssertionError("the last attempt returned or raised")


def _render(results: Sequence[Path], title: str, only: Sequence[str]) -> str:
    """Returns the page; raises `RecordError` if a record changed after it was first read."""
    from concurrent.futures import ThreadPoolExecutor

    from suite.results.records.index import read_again, read_index, record_files

    files = list(record_files(results))
    with ThreadPoolExecutor(1) as beside:
        # This process would otherwise idle while other processes read the records.
        prepared = beside.submit(_prepare_pages)
        contents = read_index(files)
    prepared.result()
    if not contents.records:
        n_broken = len(contents.unreadable)
        broken = f" that can be read ({n_broken} cannot: {contents.unreadable[0].path})" if n_broken else ""
        folders = ", ".join(map(str, results))
        raise InputError(f"{folders}: holds no records{broken}; prunebench run writes them")
    # A failed later attempt is shown beside the numbers of the earlier record.
    failures = [stored.failure for stored in contents.records if stored.failure is not None]
    chosen = _chosen([*contents.records, *failures], only)
    places = {_name(stored.record): stored for stored in chosen}

    def whole(record: Record) -> Record:
        return read_again(places[_name(record)])[0]

    from reports import render_report

    problems = [f"{entry.path}: {entry.reason}" for entry in contents.unreadable]
    return render_report([stored.record for stored in chosen], title=title, problems=problems, whole=whole)


def _prepare_pages() -> None:
    """Imports and builds what every page needs; takes seconds."""
    from importlib import import_module

    from reports.page.chart_theme import chart_library

    import_module("reports.page.html")
    chart_library()


def _chosen(records: Sequence[StoredRecord], only: Sequence[str]) -> list[StoredRecord]:
    from suite.planning.suite_cells import matching

    if not only:
        return list(records)
    pruned = [stored.record.cell for stored in records if not stored.record.cell.is_dense]
    if not pruned:
        raise InputError(f"--only {' '.join(only)}: there is no pruned record to choose from")
    fits = {cell.digest for cell in matching(pruned, only)}
    models = {cell.model for cell in pruned if cell.digest in fits}
    return [
        stored
        for stored in records
        if stored.cell_digest in fits or (stored.record.cell.is_dense and stored.record.cell.model in models)
    ]


def _name(record: Record) -> tuple[str, str, str]:
    """Returns a key that is unique to a record, also among records of the same cell."""
    return record.cell.digest, record.status, record.created


__all__ = ["render", "write_report"]
