"""`prunebench site`: builds a leaderboard as a folder of static pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from methods.errors import InputError
from suite.commands.options import say


def site(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders of records, searched at any depth, or single records."),
    ],
    out: Annotated[Path, typer.Option(help="The site's folder: new, empty, or from an earlier build.")],
    title: Annotated[str, typer.Option(help="The site's heading.")] = "Pruning leaderboard",
    reruns: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of reruns, written by verify --rerun --keep; repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Rank by this model; repeatable. (default: all that were measured)"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The site's address, to make the feed's links absolute.")
    ] = None,
) -> None:
    """Build a static leaderboard from folders of records."""
    from reports.site import SiteError, build_site

    if url is not None and not url.startswith(("https://", "http://")):
        raise InputError(f"--url {url}: begins with neither https:// nor http://")
    try:
        built = build_site(results, out, title=title, reruns=reruns or (), panel=model or (), url=url)
    except SiteError as error:
        raise InputError(str(error)) from None
    say(
        f"{built.n_records} records, {built.n_ranked} on boards, {built.n_set_apart} set apart, "
        f"{built.n_unreadable} not readable; {built.n_files} files, {built.n_removed} removed"
    )
    print(built.index)
