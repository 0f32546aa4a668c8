"""`prunebench gate`: did pruning get worse?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from methods.errors import InputError
from suite.commands.options import AsJson, print_json, say

if TYPE_CHECKING:
    from suite.results.gate import Side, Verdict


def gate(
    baseline: Annotated[
        Path, typer.Argument(help="A folder of records, or one record: what is compared with.")
    ],
    candidate: Annotated[Path, typer.Argument(help="A folder of records, or one record: what is judged.")],
    tolerances: Annotated[
        Path | None, typer.Option(help="A TOML file with tolerances in place of the built-in ones.")
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(help="Pair cells that differ in this key, e.g. calibration.seed; may be given often."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list what stayed the same.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write a Markdown summary to this file. [default: $GITHUB_STEP_SUMMARY, appended]"),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make CANDIDATE the new baseline, whatever the outcome.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two folders of records, and fail if the second is worse."""
    from suite.gate_table import as_json as verdict_as_json
    from suite.gate_table import as_lines
    from suite.results.gate import judge, load_tolerances, read_side

    held_against = load_tolerances(tolerances)
    judged = read_side(candidate, "candidate")
    try:
        verdict = judge(read_side(baseline, "baseline"), judged, held_against, across or [])
    except InputError as error:
        if not update:
            raise
        say(f"nothing to compare with: {error}")
        _update(baseline, judged)
        return
    if as_json:
        print_json(verdict_as_json(verdict))
    else:
        for line in as_lines(verdict, everything=everything):
            print(line)
    _write_summaries(verdict, junit, markdown)
    if update:
        _update(baseline, judged)
    elif verdict.exit_code:
        raise typer.Exit(verdict.exit_code)


def _write_summaries(verdict: Verdict, junit: Path | None, markdown: Path | None) -> None:
    from reports.gate_summary import gate_markdown
    from reports.junit import junit_xml
    from suite.results.files import replace_text

    for path, write in ((junit, junit_xml), (markdown, gate_markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, write(verdict))
    # Steps of a job share the file, so it is added to.
    if markdown is None and (step_summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        with Path(step_summary).open("a", encoding="utf-8") as file:
            file.write(gate_markdown(verdict))


def _update(baseline: Path, candidate: Side) -> None:
    from suite.results.gate.baseline import update_baseline

    done = update_baseline(baseline, candidate)
    removed = f", {len(done.removed)} of other cells removed" if done.removed else ""
    say(f"{baseline}: {len(done.written)} records written{removed}")


__all__ = ["gate"]
