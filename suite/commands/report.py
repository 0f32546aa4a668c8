"""`prunebench report`: the comparison report of a folder of records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from methods.errors import InputError


def report(
    results: Annotated[Path, typer.Argument(help="A folder of records.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    title: Annotated[str | None, typer.Option(help="Its heading. [default: the folder's name]")] = None,
) -> None:
    """Render the comparison report of a folder of records."""
    if not results.is_dir():
        raise InputError(f"{results}: no such folder of records")
    print(write_report(results, out, title=title or results.resolve().name))


def write_report(results: Path, out: Path, *, title: str) -> Path:
    """Renders the records below `results` into `out`, which is replaced in one step."""
    from reports import render_report
    from suite.results import ResultStore
    from suite.results.files import replace_text

    contents = ResultStore(results).records()
    if not contents.records:
        broken = f" that can be read ({len(contents.unreadable)} cannot)" if contents.unreadable else ""
        raise InputError(f"{results}: holds no records{broken}; prunebench run writes them")
    problems = [f"{entry.path}: {entry.reason}" for entry in contents.unreadable]
    page = render_report([stored.record for stored in contents.records], title=title, problems=problems)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, page)
    return out
