"""Measures a finished checkpoint, whoever pruned it, alone or held against its dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch

from methods.base import Placement
from methods.contract import dense_weights
from methods.pattern import parse_pattern
from suite.cell import DENSE, CalibrationSpec, Cell
from suite.checkpoint_pair import check_pair, other_weights
from suite.evaluation.efficiency import machine_floor
from suite.finished_checkpoint import CountedZeros, Summary, count_zeros, disagreements, read_summary
from suite.harness import present_code
from suite.measurement import (
    DenseReference,
    Measured,
    PrunedMatrix,
    add_size,
    measure_dense,
    measure_pruned,
)
from suite.model_source import find_model
from suite.models import LoadedModel, load_model
from suite.phases import PhaseLog
from suite.preflight import Inputs, model_key, preflight
from suite.results.environment import environment
from suite.results.record import (
    CalibrationIdentity,
    MachineFloor,
    Metric,
    ModelIdentity,
    ModuleReport,
    Record,
)

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
    remarks: list[str] = field(default_factory=list)


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
    if dense is None:
        inputs = preflight([asked])
        return [_measure_checkpoint(asked, summary, None, inputs[model_key(asked)], device, watcher)]
    other = asked.model_copy(update={"model": dense, "revision": dense_revision})
    inputs = preflight([asked, other])
    remarks = check_pair(asked, other, inputs)
    held = _measure_dense(other, inputs[model_key(other)], device, watcher)
    held.remarks.extend(remarks)
    found = _measure_checkpoint(asked, summary, held, inputs[model_key(asked)], device, watcher)
    return [held.evaluated, found]


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
    summary: Summary | None,
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
    if cell.is_dense:  # nothing was pruned, so it is nobody's pruned model, whatever it is held against
        model = loaded.identity
    remarks = [] if dense is None else [*dense.remarks, *other_weights(loaded.model, dense.weights)]
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
    measured.remarks += remarks
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
    asked: Cell, summary: Summary | None, dense: _Dense | None, own: ModelIdentity
) -> ModelIdentity:
    """The dense model's identity: as loaded, else as `pruning.json` has it, else the checkpoint's own."""
    if dense is not None:
        return dense.identity
    # In another dtype its weights would have another digest.
    return summary.model if summary is not None and summary.model.dtype == asked.dtype else own


def _cell(asked: Cell, summary: Summary | None, zeros: CountedZeros, model: ModelIdentity) -> Cell:
    """The cell of a checkpoint: what pruned it, as far as that is known."""
    named = {"model": model.name, "revision": None, "checkpoint": asked.model}
    if summary is not None:
        told = {name: getattr(summary, name) for name in ("method", "settings", "pattern", "allocation")}
        calibration = None if summary.calibration is None else _calibration(summary.calibration)
        return asked.model_copy(update={**named, **told, "calibration": calibration})
    if zeros.pattern is None:
        return asked.model_copy(update={"method": DENSE})
    return asked.model_copy(update={**named, "method": CHECKPOINT, "pattern": zeros.pattern})


def _calibration(stored: CalibrationIdentity) -> CalibrationSpec:
    return CalibrationSpec(
        source=stored.source, n_samples=stored.n_samples, seqlen=stored.seqlen, seed=stored.seed or 0
    )


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
    summary: Summary | None,
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
        sparsity, protocol = summary.sparsity, "target-modules"
        measured.metrics.append(
            Metric(
                name="prune_seconds",
                protocol="pruning.json",
                value=summary.prune_seconds,
                direction="lower",
            )
        )
        measured.remarks += disagreements(summary, zeros)
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
