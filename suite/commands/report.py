"""`prunebench report`: writes the comparison report of folders of records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from methods.errors import InputError
from suite.api.report import write_report


def report(
    results: Annotated[list[Path], typer.Argument(help="Folders of records, searched at any depth.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    title: Annotated[
        str | None, typer.Option(help="Heading of the page. (default: the folder's name)")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Show only the dense cells, and pruned cells whose label contains this text or matches this "
            "glob; repeatable."
        ),
    ] = None,
) -> None:
    """Compare folders of records on one HTML page."""
    for folder in results:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of records")
    if out.is_dir():
        raise InputError(f"{out}: is a folder; --out names the HTML file to write")
    heading = title or ", ".join(folder.resolve().name for folder in results)
    print(write_report(results, out, title=heading, only=only or []))
