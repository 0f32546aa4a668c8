"""`prunebench gate`: compares records with a baseline and fails if they are worse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from methods.errors import InputError
from suite.commands.options import FAILED, AsJson, print_json, say

if TYPE_CHECKING:
    from suite.results.gate import Side, Verdict


def gate(
    baseline: Annotated[Path, typer.Argument(help="A folder of records, or one record, to compare with.")],
    candidate: Annotated[Path, typer.Argument(help="A folder of records, or one record, to judge.")],
    tolerances: Annotated[
        Path | None, typer.Option(help="A TOML file with tolerances that replace the built-in ones.")
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(help="Pair cells even if they differ in this key, e.g. calibration.seed; repeatable."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list metrics that did not change.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            help="Write a Markdown summary to this file. (default: append it to $GITHUB_STEP_SUMMARY, if set)"
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Replace (or create) the baseline with the candidate, whatever the outcome."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare records with a baseline, and fail if they are worse."""
    from suite.commands.output.gate import as_json as verdict_as_json
    from suite.commands.output.gate import as_lines
    from suite.results.gate import judge, load_tolerances, read_side
    from suite.results.gate.gate_inputs import pair_cells

    for path in (junit, markdown):
        _require_writable(path)
    limits = load_tolerances(tolerances)
    judged = read_side(candidate, "candidate")
    if update:
        if candidate.is_file():
            raise InputError(f"--update: {candidate} is one record; a baseline is made of a folder of them")
        pair_cells(judged, judged, across or [])  # raises an error if the candidate is not a valid baseline
    try:
        expected = read_side(baseline, "baseline")
    except InputError as error:
        if not update:
            raise
        say(f"nothing to compare with: {error}")
        _update(baseline, judged)
        return
    try:
        verdict = judge(expected, judged, limits, across or [])
    except InputError as error:
        if not update:
            raise
        raise InputError(f"{error}; to start over, remove {baseline} first") from error
    if as_json:
        print_json(verdict_as_json(verdict))
    else:
        for line in as_lines(verdict, everything=everything):
            print(line)
    written = _write_summaries(verdict, junit, markdown)
    if update:
        _update(baseline, judged)
    elif verdict.exit_code:
        raise typer.Exit(verdict.exit_code)
    if not written:
        raise typer.Exit(FAILED)


def _require_writable(path: Path | None) -> None:
    """Raises `InputError` if a summary cannot be written, before anything is compared."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_summaries(verdict: Verdict, junit: Path | None, markdown: Path | None) -> bool:
    """Writes the summaries that were asked for; returns False if one of them could not be written."""
    from reports.gate.junit import junit_xml
    from reports.gate.summary import gate_markdown
    from suite.storage.files import replace_text

    written = True
    for path, write in ((junit, junit_xml), (markdown, gate_markdown)):
        try:
            if path is not None:
                replace_text(path, write(verdict))
        except OSError as error:
            written = False
            say(f"{path}: cannot be written: {error.strerror or error}")
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if markdown is None and step_summary:
        try:
            # The steps of a job share the file, so the summary is appended.
            with Path(step_summary).open("a", encoding="utf-8") as file:
                file.write(gate_markdown(verdict))
        except OSError as error:
            say(f"$GITHUB_STEP_SUMMARY: cannot be written: {error.strerror or error}")
    return written


def _update(baseline: Path, candidate: Side) -> None:
    from suite.results.gate.baseline import update_baseline

    done = update_baseline(baseline, candidate)
    removed = f", {len(done.removed)} of other cells removed" if done.removed else ""
    say(f"{baseline}: {len(done.written)} records written{removed}")


__all__ = ["gate"]
