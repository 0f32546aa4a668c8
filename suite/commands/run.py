"""`prunebench run`: a suite, from plan to report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.commands.options import FAILED, AsJson, Device, ExistingChoice, print_json, progress_bars, say
from suite.commands.report import write_report

if TYPE_CHECKING:
    import torch

    from suite.executors import PlannedCell


def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite (prunebench list suites) or a .toml file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of records and report. [default: results/<suite>]")
    ] = None,
    existing: Annotated[
        ExistingChoice,
        typer.Option(
            help="Cells that have a record: keep them, run those of other code or inputs, run all, or refuse."
        ),
    ] = ExistingChoice.skip,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only cells whose label has this text or glob; may be given often."),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(help="Also log records and report with a tracker: mlflow (docs/monitoring.md)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a suite, resume what is missing, write the report."""
    from suite.config import load_suite, plan
    from suite.executors import decide, hold_against_inputs, run_here
    from suite.harness import present_code
    from suite.plan import matching, resolve_device, resolve_dtype
    from suite.preflight import preflight
    from suite.results import ResultStore
    from suite.tracking import SuiteRun, Tracking, open_tracker
    from suite.workbench import Workbench

    config = load_suite(suite)
    tracker = open_tracker(track) if track is not None else None
    target = resolve_device(device)
    cells = matching(plan(config, dtype=resolve_dtype(config.dtype, target)), only or [])
    out = out or Path("results") / config.name
    store = ResultStore(out)
    planned = decide(cells, store, existing.value, code=present_code)
    if dry_run:
        _print_plan(planned, target, as_json)
        return
    inputs = preflight(cells)
    planned = hold_against_inputs(planned, existing.value, inputs)
    for entry in planned:
        if entry.state.kind == "stale" and not entry.runs:
            say(
                f"stale, kept: {entry.cell.label} ({entry.state.reason}); --existing rerun-stale runs it anew"
            )
    workbench = Workbench(target, inputs)
    store.sweep()
    with Tracking(track, tracker, SuiteRun(config.name, out, len(planned)), warn=say) as tracking:
        for entry in planned:
            if not entry.runs:
                tracking.record_written(store.path_of(entry.cell))
        with progress_bars(sum(entry.runs for entry in planned)) as bars:
            outcome = run_here(planned, workbench, store, bars, tracking.record_written)
        report_file = write_report([out], out / "report.html", title=config.name)
        tracking.finished(report_file, failed=bool(outcome.failed))
    for cell, reason in outcome.failed:
        say(f"failed: {cell.label}: {reason}")
    if as_json:
        print_json(
            {
                "report": str(report_file),
                "finished": len(outcome.finished),
                "kept": len(outcome.kept),
                "failed": [{"cell": cell.label, "reason": reason} for cell, reason in outcome.failed],
            }
        )
    else:
        print(report_file)
    if outcome.failed:
        raise typer.Exit(FAILED)


def _print_plan(planned: list[PlannedCell], device: torch.device, as_json: bool) -> None:
    from suite.estimate import estimate
    from suite.plan_table import as_json_rows, as_lines

    estimates = [estimate(entry.cell, device) for entry in planned]
    if as_json:
        print_json(as_json_rows(planned, estimates))
        return
    *lines, total = as_lines(planned, estimates)
    for line in lines:
        print(line)
    say(total)
