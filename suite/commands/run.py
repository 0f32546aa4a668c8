"""`prunebench run`: runs a suite, from its plan to the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from methods.errors import InputError
from suite.commands.options import (
    FAILED,
    AsJson,
    Device,
    Only,
    Placed,
    print_json,
    progress_bars,
    say,
    stopping_at_sigterm,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from suite.api.stages import PlannedSuite, SuiteOutcome
    from suite.cell import Cell
    from suite.executors.executor import Executor
    from suite.planning.shards import Shard
    from suite.planning.suite_cells import SuiteConfig

Where = Literal["local", "ray"]


def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite (prunebench list suites) or a .toml file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for records and report. (default: results/<suite>)")
    ] = None,
    existing: Annotated[
        Literal["skip", "rerun-stale", "rerun", "fail"],
        typer.Option(
            help="For cells that already have a record: skip them, rerun-stale (rerun those whose code or "
            "inputs changed), rerun all, or fail."
        ),
    ] = "skip",
    only: Only = None,
    shard: Annotated[
        str | None, typer.Option(help="Run only part i of n of the plan, e.g. 1/4 (docs/scale.md).")
    ] = None,
    executor: Annotated[
        Where, typer.Option(help="Run cells on this machine or on a Ray cluster (docs/scale.md).")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster: auto, or HOST:PORT of its head. (default: start Ray here)"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of cells that run at the same time. (default: one per GPU; on CPUs one, or with Ray "
            "as many as fit)",
        ),
    ] = None,
    placement: Placed = "resident",
    reuse: Annotated[
        bool, typer.Option(help="Do work that cells share (initial masks, dense references) only once.")
    ] = True,
    track: Annotated[
        str | None,
        typer.Option(help="Also log records and report to a tracker: mlflow (docs/monitoring.md)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan, with its estimated time and memory.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a suite (or resume it), and write the report."""
    from suite.api.stages import PlannedSuite
    from suite.planning.shards import parse_shard
    from suite.planning.suite_cells import in_dtype, load_suite, matching, plan
    from suite.storage.files import require_folder
    from suite.tracking import open_tracker

    config = load_suite(suite)
    part = None if shard is None else parse_shard(shard)
    if address is not None and executor != "ray":
        raise InputError(f"--address {address}: needs --executor ray")
    cells = plan(config)  # reports errors in the suite before a cluster is contacted
    tracker = None if track is None else (track, open_tracker(track))
    folder = out or Path("results") / config.name
    require_folder(folder)
    # A dry run does not start Ray.
    where = "local" if dry_run and address is None else executor
    with _open(where, address, device, workers) as runs, stopping_at_sigterm():
        cells = matching(in_dtype(cells, runs.dtype(config.dtype)), only or [])
        planned = PlannedSuite.of(
            config.name,
            cells if part is None else _part(cells, part, config, runs),
            runs,
            out=folder,
            existing=existing,
            weights=placement,
            warn=say,
        )
        if dry_run:
            _print_plan(planned, as_json)
            return
        prepared = planned.prepared(warn=say)
        if prepared.n_to_run:
            say(f"report: {prepared.plan.report}, updated during the run")
        bars = progress_bars(prepared.n_to_run)
        outcome = prepared.carry_out(bars, warn=say, reuse=reuse, track=tracker)
    for failed in outcome.failed:
        say(f"failed: {failed.cell.label}: {failed.reason}")
    if bars.is_on_terminal:
        bars.show(_ranked(outcome))
    if as_json:
        print_json(
            {
                "report": None if outcome.report is None else str(outcome.report),
                "executor": executor,
                "finished": len(outcome.finished),
                "kept": len(outcome.kept),
                "failed": [{"cell": one.cell.label, "reason": one.reason} for one in outcome.failed],
            }
        )
    elif outcome.report is not None:
        print(outcome.report)
    if outcome.failed:
        raise typer.Exit(FAILED)


def _open(executor: Where, address: str | None, device: str, workers: int | None) -> Executor:
    if executor == "ray":
        from suite.executors.ray.executor import RayExecutor

        return RayExecutor(address, device, workers, ask=sys.stderr.isatty(), say=say)
    from suite.executors.local import LocalExecutor
    from suite.machine.devices import resolve_devices

    return LocalExecutor(resolve_devices(device, workers))


def _part(cells: list[Cell], shard: Shard, config: SuiteConfig, runs: Executor) -> list[Cell]:
    """Returns the shard's cells; warns if the dtype may differ between machines or the shard is empty."""
    if config.dtype == "auto":
        say(
            f"dtype 'auto' is {runs.dtype('auto')} here: give a dtype in the suite file, so that every shard "
            "uses the same"
        )
    chosen = shard.of(cells)
    if not chosen:
        say(f"shard {shard} is empty: the plan has {len(cells)} cells")
    return chosen


def _ranked(outcome: SuiteOutcome) -> Iterator[RenderableType]:
    """Yields the ranked tables of those records of the run that exist."""
    from reports.terminal import ranked_tables
    from suite.results import ResultStore
    from suite.results.records.index import read_index

    files = [ResultStore(outcome.out).path_of(cell) for cell in outcome.cells]
    records = [stored.record for stored in read_index([file for file in files if file.exists()]).records]
    return ranked_tables(records) if records else iter(())


def _print_plan(planned: PlannedSuite, as_json: bool) -> None:
    from suite.commands.output.plan import as_json_rows, as_lines
    from suite.planning.estimate import estimate

    estimates = [estimate(entry.cell, planned.executor.device, planned.weights) for entry in planned.cells]
    if as_json:
        print_json(as_json_rows(planned.cells, estimates))
        return
    *lines, total = as_lines(planned.cells, estimates)
    for line in lines:
        print(line)
    say(total)
