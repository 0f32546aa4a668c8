"""`prunebench export`: exports a folder of records for papers, spreadsheets and READMEs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from methods.errors import InputError
from suite.commands.options import say

Format = Literal["latex", "csv", "markdown", "figures"]


def export(
    results: Annotated[Path, typer.Argument(help="A folder of records.")],
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="latex: tables, figures, BibTeX and a document that includes them; csv: one row per metric; "
            "markdown: the report's tables; figures: SVG and PDF, one column wide.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write; for latex and figures, the folder.")],
    title: Annotated[
        str | None, typer.Option(help="Heading for latex and markdown. (default: the folder's name)")
    ] = None,
) -> None:
    """Export a folder of records as LaTeX, CSV, Markdown or figures."""
    if not results.is_dir():
        raise InputError(f"{results}: no such folder of records")
    is_folder = format in ("latex", "figures")
    if is_folder and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --format {format} writes a folder")
    if not is_folder and out.is_dir():
        raise InputError(f"{out}: is a folder; --format {format} writes a file")
    _write(results, format, out, title or results.resolve().name)
    print(out)


def _write(results: Path, format: Format, out: Path, title: str) -> None:
    """Writes the export; each file is replaced atomically."""
    from reports import ReportError
    from reports.export import export_csv, export_figures, export_latex, export_markdown
    from suite.results import ResultStore
    from suite.storage.files import replace_file

    contents = ResultStore(results).records()
    problems = [f"{entry.path}: {entry.reason}" for entry in contents.unreadable]
    if not contents.records:
        broken = f" that can be read ({len(problems)} cannot: {problems[0]})" if problems else ""
        raise InputError(f"{results}: holds no records{broken}; prunebench run writes them")
    for problem in problems:
        say(f"left out: {problem}")
    records = [stored.record for stored in contents.records]
    try:
        match format:
            case "csv":
                files = {out: export_csv(records).encode()}
            case "markdown":
                files = {out: export_markdown(records, title=title, problems=problems).encode()}
            case "latex":
                made = export_latex(records, title=title, problems=problems)
                files = {out / name: data for name, data in made.items()}
            case "figures":
                files = {out / name: data for name, data in export_figures(records).items()}
    except ReportError as nothing:
        raise InputError(f"{results}: {nothing}") from None
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
