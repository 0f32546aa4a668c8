"""Which cells of a plan need to run, and how they ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from methods.errors import InputError
from suite.cell import Cell
from suite.preflight import Inputs, ModelKey, input_difference, model_key
from suite.results import CellState, ResultStore
from suite.results.record import CodeVersion

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


__all__ = ["Existing", "Outcome", "PlannedCell", "decide", "hold_against_inputs"]
