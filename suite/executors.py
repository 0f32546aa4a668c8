"""Where the cells of a plan run, and which of them need to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from methods.errors import InputError
from suite.cell import Cell
from suite.preflight import Inputs, ModelKey, input_difference, model_key
from suite.results import CellState, ResultStore
from suite.results.record import CodeVersion
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    from suite.workbench import Workbench

Existing = Literal["skip", "rerun-stale", "rerun", "fail"]
"""What to do with cells that have a record: keep it (a stale one with a warning), run again what other code
or other inputs made, run everything again, or refuse to start."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a plan and what becomes of it.

    Attributes:
        cell: the cell.
        state: what the results tree holds for it.
        runs: whether it will be run.
    """

    cell: Cell
    state: CellState
    runs: bool


@dataclass(frozen=True)
class Outcome:
    """How the cells of a plan ended.

    Attributes:
        finished: cells that were run and have numbers.
        kept: cells whose record stood already.
        failed: cells that were run and failed, with the reason.
    """

    finished: tuple[Cell, ...]
    kept: tuple[Cell, ...]
    failed: tuple[tuple[Cell, str], ...]


def decide(
    cells: Sequence[Cell],
    store: ResultStore,
    existing: Existing,
    *,
    code: Callable[[Cell], CodeVersion],
) -> list[PlannedCell]:
    """Holds a plan against what the results tree has.

    Args:
        cells: the plan.
        store: the results tree.
        existing: the policy.
        code: gives the version of the code that would run a cell.

    Raises:
        InputError: there are records and the policy is `fail`.
    """
    planned = []
    for cell in cells:
        state = store.status_of(cell, lambda cell=cell: code(cell))  # type: ignore[misc]
        if existing == "fail" and state.kind != "missing":
            raise InputError(f"{store.path_of(cell)} exists: give another --out, or --existing skip or rerun")
        planned.append(_planned(cell, state, existing))
    return planned


def hold_against_inputs(
    planned: Sequence[PlannedCell], existing: Existing, inputs: Mapping[ModelKey, Inputs]
) -> list[PlannedCell]:
    """The plan with those records stale whose model or text was changed since they were made."""
    held = []
    for entry in planned:
        record = entry.state.record
        if entry.state.kind == "complete" and record is not None:
            difference = input_difference(record, inputs[model_key(entry.cell)])
            if difference is not None:
                entry = _planned(entry.cell, CellState("stale", difference, record), existing)
        held.append(entry)
    return held


def _planned(cell: Cell, state: CellState, existing: Existing) -> PlannedCell:
    kept = {"skip": ("complete", "stale"), "rerun-stale": ("complete",), "rerun": (), "fail": ()}[existing]
    return PlannedCell(cell, state, runs=state.kind not in kept)


def run_here(
    planned: Sequence[PlannedCell],
    workbench: Workbench,
    store: ResultStore,
    watcher: Watcher | None = None,
    on_written: Callable[[Path], None] | None = None,
) -> Outcome:
    """Runs cells one after another in this process; each record is on disk before the next cell begins.

    Args:
        planned: what to run, in order; cells of one model should be neighbours.
        workbench: keeps what cells of one model share.
        store: where records go.
        watcher: hears of progress.
        on_written: gets each record's file once it is on disk.

    Raises:
        OSError: a record could not be written (a full disk); all earlier ones stand.
    """
    from suite.harness import run_cell

    watcher = watcher or Silent()
    finished: list[Cell] = []
    failed: list[tuple[Cell, str]] = []
    for entry in planned:
        if not entry.runs:
            watcher.cell_ended(entry.cell, "kept")
            continue
        watcher.cell_started(entry.cell)
        record, items = run_cell(entry.cell, workbench, watcher)
        path = store.write(record, items)
        if on_written is not None:
            on_written(path)
        if record.failure is None:
            finished.append(entry.cell)
            watcher.cell_ended(entry.cell, "complete")
        else:
            reason = f"{record.failure.phase}: {next(iter(record.failure.message.splitlines()), '')}"
            failed.append((entry.cell, reason))
            watcher.cell_ended(entry.cell, f"failed: {reason}")
    kept = tuple(entry.cell for entry in planned if not entry.runs)
    return Outcome(tuple(finished), kept, tuple(failed))


__all__ = ["Existing", "Outcome", "PlannedCell", "decide", "run_here"]
