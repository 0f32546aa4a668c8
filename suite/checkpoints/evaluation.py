"""Measures a finished checkpoint, whoever pruned it, alone or held against its dense model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import torch

from methods.contract import dense_weights
from methods.errors import InputError
from suite.checkpoints.finished import Summary, count_zeros, read_summary
from suite.checkpoints.pair import check_dense, check_pair, other_weights
from suite.checkpoints.record import add_zeros, cell_of, dense_identity, module_reports
from suite.checkpoints.writing.folder import SUMMARY
from suite.evaluation.first_token import FirstTokenChoice, choose_first_token
from suite.evaluation.inputs import Inputs, model_key
from suite.evaluation.measure import DenseReference, Measured, add_size, measure_dense, measure_pruned
from suite.evaluation.speed.reference_speed import machine_floor
from suite.machine.environment import environment
from suite.machine.phases import PhaseLog
from suite.models.layered import LayeredModel, load_layered_model
from suite.models.loading import LoadedModel, load_model
from suite.models.source import find_model
from suite.planning.preflight import preflight
from suite.planning.resume import input_difference
from suite.results import ResultStore
from suite.results.records.files import make_folder
from suite.results.records.reading import RecordError, load_record
from suite.results.records.record import MachineFloor, ModelIdentity, ModuleReport, Record
from suite.running.run_cell import present_code

if TYPE_CHECKING:
    import pandas as pd

    from methods.base import Weights
    from suite.cell import Cell
    from suite.watcher import Watcher


@dataclass(frozen=True)
class Evaluated:
    """One measured model.

    Attributes:
        record: sealed; where it is kept, as it is stored.
        items: its per-item data.
    """

    record: Record
    items: pd.DataFrame


class Outlet:
    """Where models go as they are measured.

    Args:
        store: a results tree; None = nothing is kept.
        on_measured: gets each record, once it is on the disk if it is kept.
    """

    def __init__(
        self, store: ResultStore | None = None, on_measured: Callable[[Record], None] | None = None
    ) -> None:
        self._store = store
        self._on_measured = on_measured

    def check(self, cell: Cell, measured: ModelIdentity, inputs: Inputs) -> None:
        """Makes sure, before a model is measured, that its record has a place, and takes no other one's.

        Args:
            cell: of the record to come.
            measured: what it will be about.
            inputs: what it is measured on.

        Raises:
            InputError: the folder cannot be made, or there is a record of the same name, about other weights
                or files, or on other texts.
        """
        if self._store is None:
            return
        make_folder(self._store.root)
        path = self._store.path_of(cell)
        try:
            record = load_record(path)
        except (FileNotFoundError, RecordError):  # nothing, or nothing that could be lost
            return
        held = record.checkpoint or record.model
        difference = input_difference(record.model_copy(update={"model": held, "calibration": None}), inputs)
        if held is not None and held.weight_digest != measured.weight_digest:
            difference = f"the weights of {measured.name} were changed since"
        if difference is not None:
            raise InputError(f"{path} would be lost, and {difference}: give another --out")

    def put(self, record: Record, items: pd.DataFrame) -> Evaluated:
        """Keeps a model that was measured."""
        sealed = record.sealed() if self._store is None else load_record(self._store.write(record, items))
        if self._on_measured is not None:
            self._on_measured(sealed)
        return Evaluated(sealed, items)


@dataclass(frozen=True)
class _Dense:
    """The dense model's side.

    Attributes:
        weight: gives a parameter by its name, on the host.
        again: gives the dense model; the checkpoint, which it is given, may be it afterwards.
    """

    identity: ModelIdentity
    reference: DenseReference
    weight: Callable[[str], torch.Tensor]
    again: Callable[[LoadedModel], LoadedModel]
    floor: MachineFloor
    evaluated: Evaluated
    first_token: FirstTokenChoice | None
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Machine:
    """Where models are (their layers on `device`, all of them or one at a time), and where records go."""

    device: torch.device
    weights: Weights
    outlet: Outlet


def measure_checkpoint(
    asked: Cell,
    dense: str | None,
    *,
    dense_revision: str | None,
    device: torch.device,
    watcher: Watcher,
    weights: Weights = "resident",
    outlet: Outlet | None = None,
) -> list[Evaluated]:
    """Measures the model that `asked` names, and its dense model beside it.

    One model is on the device at a time; the dense weights wait on the host, or in their files.

    Args:
        asked: what to measure, as a dense cell of the model.
        dense: the dense model; None = no comparison.
        dense_revision: its revision on the hub.
        device: where the models compute.
        watcher: hears of progress.
        weights: where their decoder layers are.
        outlet: where each is put as soon as it is measured; None = nowhere.

    Returns:
        The dense model first, if one was given, then the model.

    Raises:
        InputError: a model, text or task is not usable, the two models do not fit each other, or the outlet
            holds a record of other weights under the same name.
        PruningError: a structure cannot be read, or a model not be taken apart.
    """
    summary = read_summary(find_model(asked.model, asked.revision)[0])
    machine = _Machine(device, weights, outlet or Outlet())
    if dense is None:
        inputs = preflight([asked])
        return [_measure_checkpoint(asked, summary, None, inputs[model_key(asked)], machine, watcher)]
    other = asked.model_copy(update={"model": dense, "revision": dense_revision})
    inputs = preflight([asked, other])
    remarks = check_pair(asked, other, inputs)
    if (find_model(dense, dense_revision)[0] / SUMMARY).exists():
        remarks.append(f"what it is held against, {dense!r}, was pruned itself: it has a {SUMMARY}")
    held = _measure_dense(other, inputs[model_key(other)], machine, watcher, asked.model, summary)
    held.remarks.extend(remarks)
    found = _measure_checkpoint(asked, summary, held, inputs[model_key(asked)], machine, watcher)
    return [held.evaluated, found]


def _load(cell: Cell, inputs: Inputs, machine: _Machine, log: PhaseLog) -> LoadedModel:
    with log.timed("load"):
        if machine.weights == "onload":
            return load_layered_model(cell, inputs.folder_digest).staged(None, machine.device)
        return load_model(
            cell.model,
            revision=cell.revision,
            dtype=cell.dtype,
            device=machine.device,
            trust_remote_code=cell.trust_remote_code,
        )


def _floor(loaded: LoadedModel, log: PhaseLog) -> MachineFloor:
    with log.timed("floor"):
        return machine_floor(loaded.model, loaded.placement)


def _measure_dense(
    cell: Cell,
    inputs: Inputs,
    machine: _Machine,
    watcher: Watcher,
    checkpoint: str,
    summary: Summary | None,
) -> _Dense:
    watcher.cell_started(cell)
    log = PhaseLog(machine.device, watcher)
    created = _now()
    loaded = _load(cell, inputs, machine, log)
    remarks = [] if summary is None else check_dense(summary, loaded.identity, checkpoint)
    machine.outlet.check(cell, loaded.identity, inputs)
    floor = _floor(loaded, log)
    reference = DenseReference(keeps_head=True)  # a finished checkpoint may have another
    probe = inputs.first_token
    choice = None if probe is None else choose_first_token(loaded, probe, log)
    run = inputs.decided(cell, first_token=choice is not None and choice.taken)
    measured = measure_dense(loaded, run, inputs, reference, log)
    add_size(measured, loaded, (), None)
    measured.remarks[:0] = [*loaded.remarks, *([choice.remark] if choice else [])]
    record = _record(cell, created, machine, measured, log, floor=floor, model=loaded.identity)
    evaluated = machine.outlet.put(record, measured.items())
    watcher.cell_ended(cell, "complete", evaluated.record)
    if isinstance(loaded, LayeredModel):
        layered = loaded
        weight: Callable[[str], torch.Tensor] = loaded.dense_weight
        again: Callable[[LoadedModel], LoadedModel] = lambda _: layered  # noqa: E731
    else:
        kept = dense_weights(loaded.model)
        weight, again = kept.__getitem__, partial(_with_weights, kept)
    return _Dense(
        identity=loaded.identity,
        reference=reference,
        weight=weight,
        again=again,
        floor=floor,
        evaluated=evaluated,
        first_token=choice,
        remarks=remarks,
    )


def _first_token(
    loaded: LoadedModel, inputs: Inputs, told: bool | None, log: PhaseLog
) -> FirstTokenChoice | None:
    """What is chosen where no dense model was asked: what the prune was `told`, or what this model shows."""
    if inputs.first_token is None:
        return None
    if told is None:
        return choose_first_token(loaded, inputs.first_token, log, whose="this model's")
    begin = "begin" if told else "do not begin"
    return FirstTokenChoice(
        told, f"sequences {begin} with the tokenizer's first token, as in its pruning.json"
    )


def _with_weights(weights: Mapping[str, torch.Tensor], loaded: LoadedModel) -> LoadedModel:
    """`loaded` with other weights in it."""
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            parameter.copy_(weights[name])
    return loaded


def _measure_checkpoint(
    asked: Cell,
    summary: Summary | None,
    dense: _Dense | None,
    inputs: Inputs,
    machine: _Machine,
    watcher: Watcher,
) -> Evaluated:
    log = PhaseLog(machine.device, watcher)
    created = _now()
    watcher.cell_started(asked)
    loaded = _load(asked, inputs, machine, log)
    with log.timed("count zeros"):
        zeros = count_zeros(loaded.model, loaded.placement)
    model = dense_identity(asked, summary, dense.identity if dense else None, loaded.identity)
    cell = cell_of(asked, summary, zeros, model)
    if cell.is_dense:  # nothing was pruned, so it is nobody's pruned model, whatever it is held against
        model = loaded.identity
    machine.outlet.check(cell, loaded.identity, inputs)
    remarks = list(loaded.remarks)
    if summary is None and (find_model(asked.model, asked.revision)[0] / SUMMARY).exists():
        remarks.append(f"its {SUMMARY} was written by another program, and was not read")
    if dense is not None:
        remarks += [*dense.remarks, *other_weights(loaded, dense.weight)]
    floor = dense.floor if dense is not None else _floor(loaded, log)
    reference = dense.reference if dense is not None else DenseReference()
    if dense is not None:
        choice = dense.first_token
    else:
        choice = _first_token(loaded, inputs, None if summary is None else summary.led, log)
    if choice is not None:
        remarks.append(choice.remark)
    run = inputs.decided(cell, first_token=choice is not None and choice.taken)
    if cell.is_dense and dense is None:
        measured = measure_dense(loaded, run, inputs, reference, log)
    else:
        measured = measure_pruned(
            loaded,
            run,
            inputs,
            reference,
            log,
            dense_again=None if dense is None else partial(dense.again, loaded),
        )
    measured.remarks += remarks
    add_zeros(measured, loaded, cell, summary, zeros)
    record = _record(
        cell,
        created,
        machine,
        measured,
        log,
        floor=floor,
        model=model,
        checkpoint=None if cell.is_dense else loaded.identity,
        modules=() if cell.is_dense else module_reports(zeros),
    )
    evaluated = machine.outlet.put(record, measured.items())
    watcher.cell_ended(cell, "complete", evaluated.record)
    return evaluated


def _record(
    cell: Cell,
    created: str,
    machine: _Machine,
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
        environment=environment(machine.device),
        placement=machine.weights,
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


__all__ = ["Evaluated", "Outlet", "measure_checkpoint"]
