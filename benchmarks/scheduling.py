"""`python -m benchmarks.scheduling`: what executors add to the cells' own time, and how well plans are
scheduled.

The cells are made up: for each, the worker sleeps for a given time and returns a small record. Queue, loop,
Ray and the results tree are the real ones. `local` is the loop in this process; `ray` starts Ray on this
machine with one worker per CPU. `--plan MODELS METHODS PATTERNS` schedules a leaderboard instead: its cells
take a scaled-down number of hours, and the time of the plan is reported next to the least possible time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from suite.cell import DENSE, Cell
from suite.executors.options import WorkerOptions
from suite.executors.outcome import RecordWriter
from suite.executors.ray.resources import Needs
from suite.executors.scheduler import drive
from suite.executors.worker import Progress
from suite.planning.resume import PlannedCell
from suite.results import CellState, ResultStore
from suite.results.records.record import CodeVersion, Environment, Metric, Record
from suite.watcher import Silent

if TYPE_CHECKING:
    import pandas as pd

CODE = CodeVersion(prunebench="0", method_version=1, source_digest="0" * 64)
MACHINE = Environment(
    python="3",
    platform="made up",
    processor="made up",
    physical_cores=1,
    host_memory_bytes=1,
    device="cpu",
    packages={},
    threads=1,
    native_bf16=False,
)


@dataclass(frozen=True)
class Row:
    """One way of running a plan.

    Attributes:
        executor: `local` or `ray`.
        workers: number of workers.
        cells: number of cells that ran.
        seconds: time from the first cell to the last record.
        cells_per_second: cells / seconds.
        own: total seconds that the cells took themselves.
        added: (workers x seconds - own) / own; None if the cells took no time.
        stored: whether records were written to disk.
    """

    executor: str
    workers: int
    cells: int
    seconds: float
    cells_per_second: float
    own: float
    added: float | None
    stored: bool


class _Quiet(Silent):
    def worker_at(self, worker: str, cell: Cell | None, progress: Progress) -> None:
        """Prints nothing."""


class _Nowhere(ResultStore):
    """A result store that keeps nothing."""

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        """Drops the record."""
        return self.root


class SleepingWorker:
    """Replaces `CellActor`: a cell takes as many seconds as its settings request."""

    def __init__(self, device: str, options: WorkerOptions, threads: int | None) -> None:
        pass

    def run(self, cell: Cell, inputs: Sequence[Any]) -> tuple[Record, None]:
        """Returns the made-up record of a cell."""
        return run_made_up(cell), None


def run_made_up(cell: Cell) -> Record:
    """Sleeps, then returns a record."""
    seconds = float(str(cell.settings["seconds"]))
    if seconds:
        time.sleep(seconds)
    metric = Metric(name="perplexity", protocol="made up", value=1.0, direction="lower")
    return Record(
        status="complete",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        cell=cell,
        code=CODE,
        environment=MACHINE,
        metrics=(metric,),
    )


def made_up_cells(n_models: int, seconds: Sequence[float], share: Callable[[int], float]) -> list[Cell]:
    """For each model, makes a dense cell and others, whose seconds are multiplied by the model's share."""
    return [
        Cell(
            model=f"made-up-{model}",
            method=DENSE if place == 0 else "wanda",
            settings={"seconds": took * share(model), "place": place},
            pattern=None if place == 0 else "0.5",
            dtype="float32",
            threads=1,
        )
        for model in range(n_models)
        for place, took in enumerate(seconds)
    ]


def run_local(cells: Sequence[Cell], store: ResultStore) -> float:
    """Returns the seconds that the loop in this process takes."""
    import suite.running.run_cell as running
    from suite.executors.executor import Job
    from suite.executors.local import LocalExecutor

    planned = [PlannedCell(cell, CellState("missing", ""), True) for cell in cells]
    executor = LocalExecutor([torch.device("cpu")])
    real = running.run_cell
    running.run_cell = lambda cell, *_: (run_made_up(cell), None)  # type: ignore[assignment]
    try:
        start = time.perf_counter()
        executor.run(Job(planned, {}, WorkerOptions(), RecordWriter(store, _Quiet()), _Quiet()))
        return time.perf_counter() - start
    finally:
        running.run_cell = real


def run_ray(cells: Sequence[Cell], store: ResultStore, workers: int) -> float:
    """Returns the seconds on a Ray started on this machine, counted from the start of its workers."""
    import suite.executors.ray.pool as ray_pool
    from suite.evaluation.inputs import Inputs, model_key
    from suite.executors.ray.cluster import RayCluster
    from suite.executors.ray.quiet import quiet_ray

    planned = [PlannedCell(cell, CellState("missing", ""), True) for cell in cells]
    inputs = {model_key(cell): Inputs({}, {}, None, None) for cell in cells}
    real = ray_pool.CellActor
    ray_pool.CellActor = SleepingWorker  # type: ignore[misc, assignment]
    try:
        with quiet_ray():
            cluster = RayCluster(None, gpu=False, cpus=workers)
            try:
                pool = ray_pool.RayPool(
                    cluster, Needs(1, 0, 0), "cpu", WorkerOptions(), inputs, limit=workers
                )
                start = time.perf_counter()
                drive(planned, pool, RecordWriter(store, _Quiet()), _Quiet(), {})
                return time.perf_counter() - start
            finally:
                cluster.close()
    finally:
        ray_pool.CellActor = real  # type: ignore[misc]


def measure(executor: str, cells: Sequence[Cell], workers: int, *, stored: bool) -> Row:
    """Runs a plan with one executor."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".scheduling-") as folder:
        store = ResultStore(Path(folder)) if stored else _Nowhere(Path(folder))
        workers = workers if executor == "ray" else 1
        seconds = run_ray(cells, store, workers) if executor == "ray" else run_local(cells, store)
    own = sum(float(str(cell.settings["seconds"])) for cell in cells)
    added = (workers * seconds - own) / own if own else None
    return Row(executor, workers, len(cells), seconds, len(cells) / seconds, own, added, stored)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, and writes all numbers to `--out`."""
    asked = _parser().parse_args(arguments)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    if asked.plan:
        found = leaderboard(asked)
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        for name, value in found.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
        return
    n = asked.cells
    empty = made_up_cells(10, [0.0] * (n // 10), lambda _: 1.0)
    long = made_up_cells(10, [asked.seconds] * (asked.long_cells // 10), lambda _: 1.0)
    rows = [
        measure("ray", empty, asked.workers, stored=False),
        measure("ray", empty, asked.workers, stored=True),
        measure("local", empty, 1, stored=True),
        measure("local", long, 1, stored=True),
    ]
    asked.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print("| executor | workers | cells | own, s a cell | records | cells/s | added to the cells' own time |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        added = "" if row.added is None else f"{100 * row.added:.1f} %"
        where = "written" if row.stored else "dropped"
        print(
            f"| {row.executor} | {row.workers} | {row.cells} | {row.own / row.cells:.3f} | {where} | "
            f"{row.cells_per_second:.0f} | {added} |"
        )


def leaderboard(asked: argparse.Namespace) -> dict[str, Any]:
    """Schedules models x methods x patterns; every second stands for `--hours-per-second` hours."""
    n_models, n_methods, n_patterns = asked.plan
    chance = random.Random(0)
    # Sizes from 1 to 70 B parameters; most are small, as on real leaderboards.
    sizes = sorted(chance.choice((1, 1, 3, 3, 7, 7, 7, 8, 13, 70)) for _ in range(n_models))
    hours = [asked.hours] * (1 + n_methods * n_patterns)
    scale = 1 / (7 * asked.hours_per_second)
    cells = made_up_cells(n_models, [took * scale for took in hours], lambda model: float(sizes[model]))
    own = [float(str(cell.settings["seconds"])) for cell in cells]
    row = measure("ray", cells, asked.workers, stored=True)
    # No schedule beats all workers being busy to the end, and no cell can be split.
    least = max(sum(own) / asked.workers, max(own))
    return {
        "cells": len(cells),
        "workers": asked.workers,
        "gpu hours": sum(own) * asked.hours_per_second,
        "hours": row.seconds * asked.hours_per_second,
        "least hours": least * asked.hours_per_second,
        "ratio": row.seconds / least,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000, help="number of cells that take no time")
    parser.add_argument("--long-cells", type=int, default=500, help="number of cells that take --seconds")
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plan", type=int, nargs=3, metavar=("MODELS", "METHODS", "PATTERNS"))
    parser.add_argument("--hours", type=float, default=0.1, help="hours per cell of a 7B model")
    parser.add_argument("--hours-per-second", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=Path("runs/scheduling.json"))
    return parser


if __name__ == "__main__":
    main()
