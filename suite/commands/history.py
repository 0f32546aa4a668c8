"""`prunebench history`: a metric over dates or commits, its changes marked."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from suite.commands.options import AsJson, print_json, say


class ByChoice(StrEnum):
    """What a point of a series is."""

    date = "date"
    commit = "commit"


def history(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders of records, searched at any depth: one tree, or those of many dates."),
    ],
    metric: Annotated[str, typer.Option(help="A metric of the records.")] = "perplexity",
    protocol: Annotated[
        str | None, typer.Option(help="Only this protocol. (default: every one that has the metric)")
    ] = None,
    by: Annotated[
        ByChoice, typer.Option(help="date: a point a record. commit: a point a commit, its middle run.")
    ] = ByChoice.date,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only cells whose label has this text or glob; may be given often."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Relative change that is too small to be marked. (default: 0.01; 0.1 for costs)"
        ),
    ] = None,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a metric over months, and where it changed."""
    from suite.history_table import ASCII, as_json_rows, as_lines, signs_for
    from suite.plan import matching
    from suite.results.archive import read_archive
    from suite.results.history import history_of

    archive = read_archive(results)
    for entry in archive.unreadable:
        say(f"cannot be read: {entry.path}: {entry.reason}")
    cells = {record.digest: record.cell for record in archive.records}
    chosen = {cell.digest for cell in matching(list(cells.values()), only or [])}
    records = tuple(record for record in archive.records if record.digest in chosen)
    series = history_of(
        replace(archive, records=records), metric, protocol=protocol, by=by.value, tolerance=tolerance
    )
    if as_json:
        print_json(as_json_rows(series))
        return
    for line in as_lines(series, ASCII if ascii_only else signs_for(sys.stdout.encoding)):
        print(line)
