"""Measures a finished checkpoint, whoever pruned it, alone or held against its dense model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from methods.contract import dense_weights
from methods.errors import InputError
from suite.checkpoints.pair import check_dense, check_pair, other_weights
from suite.checkpoints.record import add_zeros, cell_of, dense_identity, told_first_token
from suite.evaluation.first_token import FirstTokenChoice, choose_first_token
from suite.evaluation.inputs import Inputs, model_key
from suite.evaluation.measure import DenseReference, Measured, add_size, measure_dense, measure_pruned
from suite.evaluation.speed.reference_speed import measure_reference_speed
from suite.machine.environment import environment
from suite.machine.phases import PhaseLog
from suite.models.layered import LayeredModel, load_layered_model
from suite.models.loading import LoadedModel, load_model
from suite.models.source import find_model
from suite.models.zeros import count_zeros
from suite.planning.preflight import preflight
from suite.planning.resume import input_difference
from suite.results import ResultStore
from suite.results.records.pruning_file import PRUNING, Pruning, read_pruning
from suite.results.records.reading import RecordError, load_record
from suite.results.records.record import ModelIdentity, ModuleReport, RecipePart, Record, ReferenceSpeed
from suite.running.run_cell import present_code, utc_now
from suite.storage.files import make_folder

if TYPE_CHECKING:
    import pandas as pd

    from methods.base import Weights
    from suite.cell import Cell
    from suite.watcher import Watcher


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

    def put(self, record: Record, items: pd.DataFrame) -> Record:
        """Keeps a model that was measured; its record as it is stored, sealed."""
        sealed = record.sealed() if self._store is None else load_record(self._store.write(record, items))
        if self._on_measured is not None:
            self._on_measured(sealed)
        return sealed


@dataclass(frozen=True)
class _Dense:
    """The dense model's side.

    Attributes:
        weight: gives a parameter by its name, on the host.
        again: gives the dense model; the checkpoint, which it is given, may be it afterwards.
        record: of the dense model.
        remarks: about the pair.
    """

    identity: ModelIdentity
    reference: DenseReference
    weight: Callable[[str], torch.Tensor]
    again: Callable[[LoadedModel], LoadedModel]
    reference_speed: ReferenceSpeed
    record: Record
    first_token: FirstTokenChoice | None
    remarks: list[str]


def measure_checkpoint(
    asked: Cell,
    dense: str | None,
    *,
    dense_revision: str | None,
    device: torch.device,
    watcher: Watcher,
    weights: Weights = "resident",
    outlet: Outlet | None = None,
) -> list[Record]:
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
        The sealed records: the dense model's first, if one was given, then the model's.

    Raises:
        InputError: a model, text or task is not usable, the two models do not fit each other, or the outlet
            holds a record of other weights under the same name.
        PruningError: a structure cannot be read, or a model not be taken apart.
    """
    folder = find_model(asked.model, asked.revision)[0]
    pruning = read_pruning(folder)
    remarks = []
    if pruning is None and (folder / PRUNING).exists():
        remarks.append(f"its {PRUNING} was written by another program, and was not read")
    outlet = outlet or Outlet()
    if dense is None:
        own = _Model(asked, preflight([asked])[model_key(asked)], device, weights, outlet, watcher)
        return [_measure_own(own, pruning, None, remarks)]
    other = asked.model_copy(update={"model": dense, "revision": dense_revision})
    inputs = preflight([asked, other])
    of_pair = check_pair(asked, other, inputs)
    if (find_model(dense, dense_revision)[0] / PRUNING).exists():
        of_pair.append(f"what it is held against, {dense!r}, was pruned itself: it has a {PRUNING}")
    beside, own = (
        _Model(cell, inputs[model_key(cell)], device, weights, outlet, watcher) for cell in (other, asked)
    )
    held = _measure_dense(beside, asked.model, pruning)
    return [held.record, _measure_own(own, pruning, held, [*remarks, *held.remarks, *of_pair])]


@dataclass
class _Model:
    """One of the two models: how it is loaded, and where its record goes."""

    asked: Cell
    inputs: Inputs
    device: torch.device
    weights: Weights
    outlet: Outlet
    watcher: Watcher
    created: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.log = PhaseLog(self.device, self.watcher)

    def load(self) -> LoadedModel:
        """The model; whoever gets it decides how long it stays in memory."""
        cell, self.created = self.asked, utc_now()
        self.watcher.cell_started(cell)
        with self.log.timed("load"):
            if self.weights == "onload":
                return load_layered_model(cell, self.inputs.folder_digest).staged(None, self.device)
            return load_model(
                cell.model,
                revision=cell.revision,
                dtype=cell.dtype,
                device=self.device,
                trust_remote_code=cell.trust_remote_code,
            )

    def reference_speed(self, loaded: LoadedModel) -> ReferenceSpeed:
        """The machine's reference speed with it."""
        with self.log.timed("reference speed"):
            return measure_reference_speed(loaded.model, loaded.placement)

    def decided(self, cell: Cell, choice: FirstTokenChoice | None) -> Cell:
        """`cell` as it is run."""
        return self.inputs.decided(cell, first_token=choice is not None and choice.taken)

    def put(
        self,
        cell: Cell,
        measured: Measured,
        *,
        reference_speed: ReferenceSpeed,
        model: ModelIdentity,
        checkpoint: ModelIdentity | None = None,
        parts: tuple[RecipePart, ...] = (),
        modules: tuple[ModuleReport, ...] = (),
    ) -> Record:
        """Keeps what was measured; the record as it is kept."""
        record = Record(
            status="complete",
            created=self.created,
            cell=cell,
            code=present_code(cell),
            environment=environment(self.device),
            placement=self.weights,
            model=model,
            checkpoint=checkpoint,
            parts=parts,
            phases=tuple(self.log.costs),
            reference_speed=reference_speed,
            metrics=tuple(measured.metrics),
            windows=tuple(measured.windows),
            divergences=tuple(measured.divergences),
            tasks=tuple(measured.tasks),
            answers=measured.answers,
            modules=modules,
            warnings=tuple(measured.remarks),
        )
        kept = self.outlet.put(record, measured.items())
        self.watcher.cell_ended(cell, "complete", kept)
        return kept


def _measure_dense(its: _Model, checkpoint: str, pruning: Pruning | None) -> _Dense:
    loaded = its.load()
    remarks = [] if pruning is None else check_dense(pruning, loaded.identity, checkpoint)
    its.outlet.check(its.asked, loaded.identity, its.inputs)
    reference_speed = its.reference_speed(loaded)
    reference = DenseReference(keeps_head=True)  # a finished checkpoint may have another
    probe = its.inputs.first_token
    choice = None if probe is None else choose_first_token(loaded, probe, its.log)
    measured = measure_dense(loaded, its.decided(its.asked, choice), its.inputs, reference, its.log)
    add_size(measured, loaded, (), None)
    measured.remarks[:0] = [*loaded.remarks, *([choice.remark] if choice else [])]
    record = its.put(its.asked, measured, reference_speed=reference_speed, model=loaded.identity)
    if isinstance(loaded, LayeredModel):
        layered = loaded
        weight: Callable[[str], torch.Tensor] = loaded.dense_weight
        again: Callable[[LoadedModel], LoadedModel] = lambda _: layered  # noqa: E731
    else:
        kept = dense_weights(loaded.model)
        weight, again = kept.__getitem__, partial(_with_weights, kept)
    return _Dense(loaded.identity, reference, weight, again, reference_speed, record, choice, remarks)


def _with_weights(weights: Mapping[str, torch.Tensor], loaded: LoadedModel) -> LoadedModel:
    """`loaded` with other weights in it."""
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            parameter.copy_(weights[name])
    return loaded


def _measure_own(
    own: _Model, pruning: Pruning | None, dense: _Dense | None, remarks: Sequence[str]
) -> Record:
    """Measures the model that was asked for.

    Args:
        own: that model.
        pruning: what lies beside it.
        dense: what it is held against.
        remarks: of its folder, and of the pair.
    """
    loaded = own.load()
    with own.log.timed("count zeros"):
        zeros = count_zeros(loaded.model, loaded.placement, find_pattern=pruning is None)
    model = dense_identity(own.asked, pruning, dense.identity if dense else None, loaded.identity)
    cell = cell_of(own.asked, pruning, zeros, model)
    if cell.is_dense:  # nothing was pruned, so it is nobody's pruned model, whatever it is held against
        model = loaded.identity
    own.outlet.check(cell, loaded.identity, own.inputs)
    told = [*loaded.remarks, *remarks]
    if dense is None:
        reference_speed, reference = own.reference_speed(loaded), DenseReference()
        choice = _first_token(own, loaded, told_first_token(pruning))
    else:
        reference_speed, reference, choice = dense.reference_speed, dense.reference, dense.first_token
        told += other_weights(loaded, dense.weight)
    if choice is not None:
        told.append(choice.remark)
    run = own.decided(cell, choice)
    if cell.is_dense and dense is None:
        measured = measure_dense(loaded, run, own.inputs, reference, own.log)
    else:
        again = None if dense is None else partial(dense.again, loaded)
        measured = measure_pruned(loaded, run, own.inputs, reference, own.log, dense_again=again)
    measured.remarks += told
    add_zeros(measured, loaded, cell, pruning, zeros)
    return own.put(
        cell,
        measured,
        reference_speed=reference_speed,
        model=model,
        checkpoint=None if cell.is_dense else loaded.identity,
        parts=() if cell.is_dense or pruning is None else pruning.record.parts,
        modules=() if cell.is_dense else zeros.modules,
    )


def _first_token(own: _Model, loaded: LoadedModel, told: bool | None) -> FirstTokenChoice | None:
    """What is chosen where no dense model was asked: what the prune was `told`, or what this model shows."""
    if own.inputs.first_token is None:
        return None
    if told is None:
        return choose_first_token(loaded, own.inputs.first_token, own.log, whose="this model's")
    begin = "begin" if told else "do not begin"
    return FirstTokenChoice(told, f"sequences {begin} with the tokenizer's first token, as in its {PRUNING}")


__all__ = ["Outlet", "measure_checkpoint"]
