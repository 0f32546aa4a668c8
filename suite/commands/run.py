"""`prunebench run`: a suite, from plan to report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from methods.errors import InputError
from suite.commands.options import (
    FAILED,
    AsJson,
    Device,
    ExecutorChoice,
    ExistingChoice,
    Placed,
    PlacementChoice,
    print_json,
    progress_bars,
    say,
    stopping_at_sigterm,
)

if TYPE_CHECKING:
    import torch
    from rich.console import RenderableType

    from methods.base import Weights
    from suite.cell import Cell
    from suite.executors.executor import Executor
    from suite.planning.resume import PlannedCell
    from suite.planning.shards import Shard
    from suite.planning.suite_cells import SuiteConfig


def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite (prunebench list suites) or a .toml file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for records and report. (default: results/<suite>)")
    ] = None,
    existing: Annotated[
        ExistingChoice,
        typer.Option(
            help="For cells that already have a record: skip them, rerun-stale (rerun those whose code or "
            "inputs changed), rerun all, or fail."
        ),
    ] = ExistingChoice.skip,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only cells whose label contains this text or matches this glob; repeatable."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Run only part i of n of the plan, e.g. 1/4 (docs/scale.md).")
    ] = None,
    executor: Annotated[
        ExecutorChoice, typer.Option(help="Run cells on this machine or on a Ray cluster (docs/scale.md).")
    ] = ExecutorChoice.local,
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster: auto, or HOST:PORT of its head. (default: start Ray here)"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Cells at a time. (default: one per GPU; on CPUs one, or with Ray as many as fit)"
        ),
    ] = None,
    placement: Placed = PlacementChoice.resident,
    reuse: Annotated[
        bool, typer.Option(help="Compute what cells share (initial masks, dense references) only once.")
    ] = True,
    track: Annotated[
        str | None,
        typer.Option(help="Also log records and report to a tracker: mlflow (docs/monitoring.md)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, its time and memory, and stop.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a suite (or resume it), and write the report."""
    from suite.api.live_report import LiveReport
    from suite.executors.executor import Job
    from suite.executors.options import worker_options
    from suite.executors.outcome import RecordWriter
    from suite.planning.estimate import check_fits
    from suite.planning.preflight import preflight
    from suite.planning.resume import decide, hold_against_inputs
    from suite.planning.shards import parse_shard
    from suite.planning.suite_cells import load_suite, matching, plan
    from suite.results import ResultStore
    from suite.results.records.files import require_folder
    from suite.running.run_cell import present_code
    from suite.tracking.tracker import SuiteRun, Tracking, open_tracker

    config = load_suite(suite)
    part = None if shard is None else parse_shard(shard)
    if address is not None and executor is not ExecutorChoice.ray:
        raise InputError(f"--address {address}: is for --executor ray")
    plan(config, dtype="float32")  # what is wrong with it is said before a cluster is asked
    tracker = open_tracker(track) if track is not None else None
    out = out or Path("results") / config.name
    require_folder(out)
    # A dry run starts no Ray of its own.
    where = ExecutorChoice.local if dry_run and address is None else executor
    with _open(where, address, device, workers) as runs, stopping_at_sigterm():
        cells = matching(plan(config, dtype=runs.dtype(config.dtype)), only or [])
        if part is not None:
            cells = _part(cells, part, config, runs)
        store = ResultStore(out)
        planned = decide(cells, store, existing.value, code=present_code)
        weights = placement.weights
        check_fits(planned, runs.device, runs.available(), weights=weights, warn=say)
        if dry_run:
            _print_plan(planned, runs.device, weights, as_json)
            return
        inputs = preflight(cells)
        for (name, _, _), of_model in inputs.items():
            for remark in of_model.remarks:
                say(f"{name}: {remark}")
        planned = hold_against_inputs(planned, existing.value, inputs)
        for entry in planned:
            if entry.state.kind == "stale" and not entry.runs:
                reason = entry.state.reason
                say(f"stale, kept: {entry.cell.label} ({reason}); --existing rerun-stale runs it anew")
        store.sweep()
        options = worker_options(planned, out, reuse=reuse, weights=weights)
        n_kept = sum(not entry.runs for entry in planned)
        bars = progress_bars(len(planned) - n_kept)
        live = LiveReport(out, config.name, n_kept=n_kept, n_cells=len(planned), doing=bars.lines, warn=say)

        def written(path: Path) -> None:
            tracking.record_written(path)
            live.cell_ended(writer.outcome)

        writer = RecordWriter(store, bars, written)
        if n_kept < len(planned):
            say(f"report: {live.path}, kept up to date while the run lasts")
        with Tracking(track, tracker, SuiteRun(config.name, out, len(planned)), warn=say) as tracking, live:
            for entry in planned:
                if not entry.runs:
                    tracking.record_written(store.path_of(entry.cell))
            with bars:
                runs.run(Job(planned, inputs, options, writer, bars))
            outcome = writer.outcome
            if not outcome.failed:
                runs.forget_shared(options)
            report_file = None
            if planned:
                report_file = live.path
                is_final = live.finish()
                if not is_final:
                    say(f"{report_file} is being written by another run, which shows these cells too")
                tracking.finished(report_file if is_final else None, failed=bool(outcome.failed))
    for cell, reason in outcome.failed:
        say(f"failed: {cell.label}: {reason}")
    if bars.is_on_terminal:
        bars.show(_ranked([store.path_of(entry.cell) for entry in planned]))
    if as_json:
        print_json(
            {
                "report": None if report_file is None else str(report_file),
                "executor": executor.value,
                "finished": len(outcome.finished),
                "kept": len(outcome.kept),
                "failed": [{"cell": cell.label, "reason": reason} for cell, reason in outcome.failed],
            }
        )
    elif report_file is not None:
        print(report_file)
    if outcome.failed:
        raise typer.Exit(FAILED)


def _open(executor: ExecutorChoice, address: str | None, device: str, workers: int | None) -> Executor:
    if executor is ExecutorChoice.ray:
        from suite.executors.ray.executor import RayExecutor

        return RayExecutor(address, device, workers, ask=sys.stderr.isatty(), say=say)
    from suite.executors.local import LocalExecutor
    from suite.machine.devices import resolve_devices

    return LocalExecutor(resolve_devices(device, workers))


def _part(cells: list[Cell], shard: Shard, config: SuiteConfig, runs: Executor) -> list[Cell]:
    """The shard's cells; says what may make machines cut differently, and that there are none."""
    if config.dtype == "auto":
        say(
            f"dtype 'auto' is {runs.dtype('auto')} here: give a dtype in the suite file, so that every shard "
            "takes the same"
        )
    own = shard.of(cells)
    if not own:
        say(f"shard {shard} is empty: the plan has {len(cells)} cells")
    return own


def _ranked(files: Sequence[Path]) -> Iterator[RenderableType]:
    """The ranked tables of those records that are there."""
    from reports.terminal import ranked_tables
    from suite.results.records.outline import read_outlines

    records = [outline.record for outline in read_outlines([file for file in files if file.exists()]).records]
    return ranked_tables(records) if records else iter(())


def _print_plan(
    planned: Sequence[PlannedCell], device: torch.device, weights: Weights, as_json: bool
) -> None:
    from suite.commands.output.plan import as_json_rows, as_lines
    from suite.planning.estimate import estimate

    estimates = [estimate(entry.cell, device, weights) for entry in planned]
    if as_json:
        print_json(as_json_rows(planned, estimates))
        return
    *lines, total = as_lines(planned, estimates)
    for line in lines:
        print(line)
    say(total)
