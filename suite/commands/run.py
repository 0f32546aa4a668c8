"""`prunebench run`: a suite, from plan to report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from suite.commands.report import write_report

if TYPE_CHECKING:
    import torch

    from methods.base import Weights
    from suite.cell import Cell
    from suite.config import SuiteConfig
    from suite.executors import PlannedCell
    from suite.executors.executor import Executor
    from suite.executors.shards import Shard


def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite (prunebench list suites) or a .toml file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of records and report. (default: results/<suite>)")
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
    shard: Annotated[
        str | None, typer.Option(help="Run part i of n of the plan, such as 1/4 (docs/scale.md).")
    ] = None,
    executor: Annotated[
        ExecutorChoice, typer.Option(help="Run cells on this machine, or on a Ray cluster (docs/scale.md).")
    ] = ExecutorChoice.local,
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster: auto, or HOST:PORT of its head. (default: a Ray started here)"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Cells at a time. (default: one a GPU; on CPUs one, with Ray as many as fit)"
        ),
    ] = None,
    placement: Placed = PlacementChoice.resident,
    reuse: Annotated[
        bool, typer.Option(help="Keep what cells share (initial masks, dense references) for each other.")
    ] = True,
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
    from suite.estimate import check_fits
    from suite.executors import decide, hold_against_inputs
    from suite.executors.bench import bench_options
    from suite.executors.executor import Job
    from suite.executors.shards import parse_shard
    from suite.executors.tally import Tally
    from suite.harness import present_code
    from suite.plan import matching
    from suite.preflight import preflight
    from suite.results import ResultStore
    from suite.results.files import require_folder
    from suite.tracking import SuiteRun, Tracking, open_tracker

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
        options = bench_options(planned, out, reuse=reuse, weights=weights)
        with Tracking(track, tracker, SuiteRun(config.name, out, len(planned)), warn=say) as tracking:
            for entry in planned:
                if not entry.runs:
                    tracking.record_written(store.path_of(entry.cell))
            with progress_bars(sum(entry.runs for entry in planned)) as bars:
                tally = Tally(store, bars, tracking.record_written)
                runs.run(Job(planned, inputs, options, tally, bars))
            outcome = tally.outcome
            if not outcome.failed:
                runs.forget_shared(options)
            report_file = None
            if planned:
                report_file = write_report([out], out / "report.html", title=config.name)
                tracking.finished(report_file, failed=bool(outcome.failed))
    for cell, reason in outcome.failed:
        say(f"failed: {cell.label}: {reason}")
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
        from suite.executors.ray_executor import RayExecutor

        return RayExecutor(address, device, workers, ask=sys.stderr.isatty(), say=say)
    from suite.executors.local import LocalExecutor
    from suite.plan import resolve_devices

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


def _print_plan(
    planned: Sequence[PlannedCell], device: torch.device, weights: Weights, as_json: bool
) -> None:
    from suite.estimate import estimate
    from suite.plan_table import as_json_rows, as_lines

    estimates = [estimate(entry.cell, device, weights) for entry in planned]
    if as_json:
        print_json(as_json_rows(planned, estimates))
        return
    *lines, total = as_lines(planned, estimates)
    for line in lines:
        print(line)
    say(total)
