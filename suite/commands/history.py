"""`prunebench history`: shows a metric over dates or commits, and marks its changes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from suite.commands.options import AsJson, Only, print_json, say


def history(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders of records, searched at any depth; one folder may hold all dates."),
    ],
    metric: Annotated[
        str, typer.Option(help="The metric to show, by its name in the records.")
    ] = "perplexity",
    protocol: Annotated[
        str | None, typer.Option(help="Show only this protocol. (default: all that have the metric)")
    ] = None,
    by: Annotated[
        Literal["date", "commit"],
        typer.Option(help="date: one point per record. commit: one point per commit, its median run."),
    ] = "date",
    only: Only = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Mark only relative changes above this. (default: 0.01, for costs 0.1)"),
    ] = None,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a metric over dates or commits, and where it changed."""
    from suite.commands.output.history import ASCII, as_json_rows, as_lines, signs_for
    from suite.planning.suite_cells import matching
    from suite.results.history.series import history_of, read_history

    archive = read_history(results)
    for entry in archive.unreadable:
        say(f"cannot be read: {entry.path}: {entry.reason}")
    cells = {stored.cell_digest: stored.record.cell for stored in archive.records}
    chosen = {cell.digest for cell in matching(list(cells.values()), only or [])}
    records = [stored for stored in archive.records if stored.cell_digest in chosen]
    series = history_of(records, metric, protocol=protocol, by=by, tolerance=tolerance)
    if as_json:
        print_json(as_json_rows(series))
        return
    for line in as_lines(series, ASCII if ascii_only else signs_for(sys.stdout.encoding)):
        print(line)
