"""Measures a finished checkpoint, whoever pruned it, alone or held against its dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from methods.base import Placement
from methods.contract import dense_weights
from methods.errors import InputError
from methods.pattern import parse_pattern
from suite.cell import DENSE, AllocationSpec, CalibrationSpec, Cell
from suite.evaluation.efficiency import machine_floor
from suite.finished_checkpoint import CountedZeros, count_zeros, disagreement, read_summary
from suite.harness import present_code
from suite.measurement import (
    DenseReference,
    Measured,
    PrunedMatrix,
    add_size,
    measure_dense,
    measure_pruned,
)
from suite.models import LoadedModel, find_model, load_model, load_skeleton
from suite.phases import PhaseLog
from suite.preflight import Inputs, model_key, preflight
from suite.results.environment import environment
from suite.results.record import MachineFloor, Metric, ModelIdentity, ModuleReport, Record

if TYPE_CHECKING:
    import pandas as pd

    from suite.watcher import Watcher

CHECKPOINT = "checkpoint"
"""The method name of a checkpoint that does not say what pruned it."""


@dataclass(frozen=True)
class Evaluated:
    """One measured model.

    Attributes:
        record: not yet sealed.
        items: its per-item data.
    """

    record: Record
    items: pd.DataFrame


@dataclass(frozen=True)
class _Dense:
    """The dense model's side, its weights on the host."""

    identity: ModelIdentity
    reference: DenseReference
    weights: Mapping[str, torch.Tensor]
    floor: MachineFloor
    evaluated: Evaluated


def evaluate_checkpoint(
    asked: Cell, dense: str | None, *, dense_revision: str | None, device: torch.device, watcher: Watcher
) -> list[Evaluated]:
    """Measures the model that `asked` names, and its dense model beside it.

    One model is on the device at a time; the dense weights wait on the host.

    Args:
        asked: what to measure, as a dense cell of the model.
        dense: the dense model; None = no comparison.
        dense_revision: its revision on the hub.
        device: where the models compute.
        watcher: hears of progress.

    Returns:
        The dense model first, if one was given, then the model.

    Raises:
        InputError: a model, text or task is not usable, or the two models do not fit each other.
        PruningError: a structure cannot be read, or a model not be taken apart.
    """
    summary = read_summary(find_model(asked.model, asked.revision)[0])
    if summary is not None and dense is None:
        asked = asked.model_copy(update={"divergence": False})
    cells = [asked]
    if dense is not None:
        cells.append(asked.model_copy(update={"model": dense, "revision": dense_revision}))
    inputs = preflight(cells)
    if dense is not None:
        _check_same_structure(*cells)
        _check_same_tokens(cells, inputs)
    held = (
        _measure_dense(cells[1], inputs[model_key(cells[1])], device, watcher) if dense is not None else None
    )
    found = _measure_checkpoint(asked, summary, held, inputs[model_key(asked)], device, watcher)
    return [found] if held is None else [held.evaluated, found]


def _check_same_tokens(cells: list[Cell], inputs: Mapping[Any, Inputs]) -> None:
    """Refuses two models whose tokenizers make other tokens of the same text."""
    own, dense = (inputs[model_key(cell)] for cell in cells)
    for spec in cells[0].perplexity:
        if own.windows[spec].corpus_digest != dense.windows[spec].corpus_digest:
            raise InputError(
                f"{cells[0].model!r} cannot be held against {cells[1].model!r}: their tokenizers make other "
                f"tokens of {spec.corpus}"
            )


def _load(cell: Cell, device: torch.device, log: PhaseLog) -> LoadedModel:
    with log.timed("load"):
        return load_model(
            cell.model,
            revision=cell.revision,
            dtype=cell.dtype,
            device=device,
            trust_remote_code=cell.trust_remote_code,
        )


def _floor(loaded: LoadedModel, log: PhaseLog) -> MachineFloor:
    with log.timed("floor"):
        return machine_floor(loaded.model, Placement())


def _measure_dense(cell: Cell, inputs: Inputs, device: torch.device, watcher: Watcher) -> _Dense:
    watcher.cell_started(cell)
    log = PhaseLog(device, watcher)
    created = _now()
    loaded = _load(cell, device, log)
    floor = _floor(loaded, log)
    reference = DenseReference()
    measured = measure_dense(loaded, cell, inputs, reference, log)
    add_size(measured, loaded, (), None)
    record = _record(cell, created, device, measured, log, floor=floor, model=loaded.identity)
    watcher.cell_ended(cell, "complete")
    evaluated = Evaluated(record, measured.items())
    return _Dense(loaded.identity, reference, dense_weights(loaded.model), floor, evaluated)


def _measure_checkpoint(
    asked: Cell,
    summary: Mapping[str, Any] | None,
    dense: _Dense | None,
    inputs: Inputs,
    device: torch.device,
    watcher: Watcher,
) -> Evaluated:
    log = PhaseLog(device, watcher)
    created = _now()
    watcher.cell_started(asked)
    loaded = _load(asked, device, log)
    with log.timed("count zeros"):
        zeros = count_zeros(loaded.model)
    model = _dense_identity(asked, summary, dense, loaded.identity)
    cell = _cell(asked, summary, zeros, model)
    floor = dense.floor if dense is not None else _floor(loaded, log)
    reference = dense.reference if dense is not None else DenseReference()
    if cell.is_dense and dense is None:
        measured = measure_dense(loaded, cell, inputs, reference, log)
    else:
        measured = measure_pruned(
            loaded,
            cell,
            inputs,
            reference,
            log,
            dense_again=None if dense is None else lambda: _dense_again(loaded, dense),
        )
    _add_zeros(measured, loaded, cell, summary, zeros)
    record = _record(
        cell,
        created,
        device,
        measured,
        log,
        floor=floor,
        model=model,
        checkpoint=None if cell.is_dense else loaded.identity,
        modules=() if cell.is_dense else _modules(zeros),
    )
    watcher.cell_ended(cell, "complete")
    return Evaluated(record, measured.items())


def _dense_identity(
    asked: Cell, summary: Mapping[str, Any] | None, dense: _Dense | None, own: ModelIdentity
) -> ModelIdentity:
    """The dense model's identity: as loaded, else as `pruning.json` has it, else the checkpoint's own."""
    if dense is not None:
        return dense.identity
    if summary is not None:
        said = ModelIdentity.model_validate(summary["model"])
        if said.dtype == asked.dtype:  # in another dtype its weights would have another digest
            return said
    return own


def _cell(asked: Cell, summary: Mapping[str, Any] | None, zeros: CountedZeros, model: ModelIdentity) -> Cell:
    """The cell of a checkpoint: what pruned it, as far as that is known."""
    named = {"model": model.name, "revision": None, "checkpoint": asked.model}
    if summary is not None:
        allocation, calibration = summary.get("allocation"), summary.get("calibration")
        return asked.model_copy(
            update={
                **named,
                "method": summary["method"],
                "settings": summary["settings"],
                "pattern": summary["pattern"],
                "allocation": None if allocation is None else AllocationSpec.model_validate(allocation),
                "calibration": None if calibration is None else _calibration(calibration),
            }
        )
    if zeros.pattern is None:
        return asked.model_copy(update={"method": DENSE})
    return asked.model_copy(update={**named, "method": CHECKPOINT, "pattern": zeros.pattern})


def _calibration(stored: Mapping[str, Any]) -> CalibrationSpec:
    fields = {key: stored[key] for key in ("source", "n_samples", "seqlen")}
    return CalibrationSpec(**fields, seed=stored["seed"] or 0)


def _check_same_structure(own: Cell, dense: Cell) -> None:
    """Refuses two models whose parameters have other names or shapes."""
    shapes, expected = _shapes(own), _shapes(dense)
    if shapes != expected:
        off = next(n for n in sorted({*shapes, *expected}) if shapes.get(n) != expected.get(n))
        raise InputError(
            f"{own.model!r} cannot be held against {dense.model!r}: {off} has shape "
            f"{shapes.get(off, 'none')} in the one and {expected.get(off, 'none')} in the other"
        )


def _shapes(cell: Cell) -> dict[str, tuple[int, ...]]:
    skeleton = load_skeleton(
        cell.model, revision=cell.revision, trust_remote_code=cell.trust_remote_code
    ).model
    return {name: tuple(parameter.shape) for name, parameter in skeleton.named_parameters()}


def _dense_again(loaded: LoadedModel, dense: _Dense) -> LoadedModel:
    """The dense model, its weights put into the checkpoint's own."""
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            parameter.copy_(dense.weights[name])
    return loaded


def _add_zeros(
    measured: Measured,
    loaded: LoadedModel,
    cell: Cell,
    summary: Mapping[str, Any] | None,
    zeros: CountedZeros,
) -> None:
    """Adds sparsity and sizes, and says where the sparsity comes from."""
    if cell.is_dense:
        add_size(measured, loaded, (), None)
        return
    if summary is None:
        measured.remarks.append("its sparsity was counted from zeros: the checkpoint has no pruning.json")
        sparsity, protocol = zeros.sparsity, "zeros"
    else:
        sparsity, protocol = float(summary["sparsity"]), "target-modules"
        measured.metrics.append(
            Metric(
                name="prune_seconds",
                protocol="pruning.json",
                value=summary["prune_seconds"],
                direction="lower",
            )
        )
        if (problem := disagreement(summary, zeros)) is not None:
            measured.remarks.append(problem)
    measured.metrics.append(Metric(name="sparsity", protocol=protocol, value=sparsity, direction="none"))
    matrices = [PrunedMatrix(m.n_weights, m.n_weights - m.n_zeros, m.itemsize) for m in zeros.modules]
    add_size(measured, loaded, matrices, parse_pattern(cell.pattern) if cell.pattern else None)


def _modules(zeros: CountedZeros) -> tuple[ModuleReport, ...]:
    return tuple(
        ModuleReport(
            module=m.name,
            layer=m.layer,
            block=m.block,
            shape=m.shape,
            n_weights=m.n_weights,
            n_pruned=m.n_zeros,
        )
        for m in zeros.modules
    )


def _record(
    cell: Cell,
    created: str,
    device: torch.device,
    measured: Measured,
    log: PhaseLog,
    *,
    floor: MachineFloor,
    model: ModelIdentity,
    checkpoint: ModelIdentity | None = None,
    modules: tuple[ModuleReport, ...] = (),
) -> Record:
    return Record(
        status="complete",
        created=created,
        cell=cell,
        code=present_code(cell),
        environment=environment(device),
        model=model,
        checkpoint=checkpoint,
        phases=tuple(log.costs),
        floor=floor,
        metrics=tuple(measured.metrics),
        windows=tuple(measured.windows),
        divergences=tuple(measured.divergences),
        tasks=tuple(measured.tasks),
        answers=measured.answers,
        modules=modules,
        warnings=tuple(measured.remarks),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


__all__ = ["CHECKPOINT", "Evaluated", "evaluate_checkpoint"]
