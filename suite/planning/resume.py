"""Decides which cells of a plan need to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from methods.errors import InputError
from suite.cell import Cell
from suite.evaluation.inputs import Inputs, ModelKey, both_ways, model_key
from suite.results import CellState, ResultStore
from suite.results.records.record import CodeVersion, Record

Existing = Literal["skip", "rerun-stale", "rerun", "fail"]
"""What to do with cells that already have a record: `skip` keeps it (with a warning if it is stale),
`rerun-stale` reruns it if code or inputs changed, `rerun` reruns all, `fail` refuses to start."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a plan, and whether it will run.

    Attributes:
        cell: the cell.
        state: the state of the cell in the results tree.
        runs: whether it will be run.
    """

    cell: Cell
    state: CellState
    runs: bool


def decide(
    cells: Sequence[Cell],
    store: ResultStore,
    existing: Existing,
    *,
    code: Callable[[Cell], CodeVersion],
) -> list[PlannedCell]:
    """Compares a plan with the results tree, and decides which cells will run.

    Args:
        cells: the plan.
        store: the results tree.
        existing: the policy.
        code: returns the version of the code that would run a cell.

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


def compare_with_inputs(
    planned: Sequence[PlannedCell], existing: Existing, inputs: Mapping[ModelKey, Inputs]
) -> list[PlannedCell]:
    """Returns the plan with records marked stale if their model or text changed since they were written."""
    updated = []
    for entry in planned:
        record = entry.state.record
        if entry.state.kind == "complete" and record is not None:
            difference = input_difference(record, inputs[model_key(entry.cell)])
            if difference is not None:
                entry = _planned(entry.cell, CellState("stale", difference, record), existing)
        updated.append(entry)
    return updated


def input_difference(record: Record, inputs: Inputs) -> str | None:
    """Describes how the inputs of `record` differ from the current ones; None if they agree."""
    model, cell = record.model, record.cell
    if model is not None and (model.revision, model.folder_digest) != (inputs.revision, inputs.folder_digest):
        return f"the model {cell.model} was changed since"
    if cell.calibration is not None and record.calibration is not None:
        drawn = map(inputs.calibrations.get, both_ways(cell.calibration))
        if record.calibration.digest not in [timed.calibration.digest for timed in drawn if timed]:
            return f"the calibration text {cell.calibration.source} was changed since"
    digests = {
        windows.protocol: windows.corpus_digest
        for spec in cell.perplexity
        for windows in map(inputs.windows.get, both_ways(spec))
        if windows
    }
    spec, answers = cell.answers, record.answers
    if spec and answers and inputs.prompts[spec.prompts].digest != answers.prompts_digest:
        return f"the prompts of {spec.prompts} were changed since"
    asked = {
        protocol: digest for task in cell.tasks for protocol, digest in inputs.tasks[task].digests.items()
    }
    for outcomes in record.tasks:
        if asked.get(outcomes.protocol, outcomes.docs_digest) != outcomes.docs_digest:
            return f"the questions of {outcomes.task} were changed since"
    for losses in record.windows:
        if digests.get(losses.protocol, losses.corpus_digest) != losses.corpus_digest:
            return f"the text of {losses.protocol} was changed since"
    return None


def _planned(cell: Cell, state: CellState, existing: Existing) -> PlannedCell:
    kept = {"skip": ("complete", "stale"), "rerun-stale": ("complete",), "rerun": (), "fail": ()}[existing]
    return PlannedCell(cell, state, runs=state.kind not in kept)


__all__ = ["Existing", "PlannedCell", "compare_with_inputs", "decide"]
