"""Measures a finished checkpoint, pruned by any program, alone or compared with its dense model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from methods.contract import dense_weights
from methods.errors import InputError
from suite.checkpoints.pair import check_dense, check_pair, other_weights
from suite.checkpoints.record import add_zeros, cell_of, dense_identity, recorded_first_token
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
    """Stores and reports the record of each model that was measured.

    Args:
        store: a results tree; None = records are not stored.
        on_measured: called with each record, after it was stored.
    """

    def __init__(
        self, store: ResultStore | None = None, on_measured: Callable[[Record], None] | None = None
    ) -> None:
        self._store = store
        self._on_measured = on_measured

    def check(self, cell: Cell, measured: ModelIdentity, inputs: Inputs) -> None:
        """Checks, before a model is measured, that its record can be stored and overwrites no different one.

        Args:
            cell: cell of the future record.
            measured: the model that will be measured.
            inputs: what it will be measured on.

        Raises:
            InputError: the folder cannot be created, or it contains a record of the same name that was made
                of different weights or files, or on different texts.
        """
        if self._store is None:
            return
        make_folder(self._store.root)
        path = self._store.path_of(cell)
        try:
            record = load_record(path)
        except (FileNotFoundError, RecordError):  # no record, or an unreadable one
            return
        existing = record.checkpoint or record.model
        difference = input_difference(
            record.model_copy(update={"model": existing, "calibration": None}), inputs
        )
        if existing is not None and existing.weight_digest != measured.weight_digest:
            difference = f"the weights of {measured.name} were changed since"
        if difference is not None:
            raise InputError(f"{path} would be overwritten, and {difference}: give another --out")

    def put(self, record: Record, items: pd.DataFrame) -> Record:
        """Stores the record of a model that was measured; returns the sealed record as stored."""
        sealed = record.sealed() if self._store is None else load_record(self._store.write(record, items))
        if self._on_measured is not None:
            self._on_measured(sealed)
        return sealed


@dataclass(frozen=True)
class _Dense:
    """The measured dense model, for comparison with the checkpoint.

    Attributes:
        weight: returns a dense parameter by its name, on the host.
        again: returns the dense model; may overwrite the weights of the loaded checkpoint that it is passed.
        record: record of the dense model.
        remarks: remarks on the pair.
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
    """Measures the model of the cell `asked`, and its dense model if one is given.

    Only one model is on the device at a time; the dense weights are kept on the host or in their files.

    Args:
        asked: what to measure, as a dense cell of the model.
        dense: the dense model; None = no comparison.
        dense_revision: revision of the dense model on the hub.
        device: the device on which the models compute.
        watcher: receives progress events.
        weights: where the weights of decoder layers are kept.
        outlet: receives each record once it is measured; None = records are only returned.

    Returns:
        The sealed records: the dense model's first, if one was given, then the model's.

    Raises:
        InputError: a model, text or task cannot be used, the two models do not match, or the outlet has a
            record of different weights under the same name.
        PruningError: the structure of a model cannot be read, or its layers cannot be loaded one by one.
    """
    folder = find_model(asked.model, asked.revision)[0]
    pruning = read_pruning(folder)
    remarks = []
    if pruning is None and (folder / PRUNING).exists():
        remarks.append(f"its {PRUNING} was written by another program, and was not read")
    outlet = outlet or Outlet()
    if dense is None:
        model = _Model(asked, preflight([asked])[model_key(asked)], device, weights, outlet, watcher)
        return [_measure_checkpoint(model, pruning, None, remarks)]
    other = asked.model_copy(update={"model": dense, "revision": dense_revision})
    inputs = preflight([asked, other])
    of_pair = check_pair(asked, other, inputs)
    if (find_model(dense, dense_revision)[0] / PRUNING).exists():
        of_pair.append(f"the dense model {dense!r} was pruned itself: it has a {PRUNING}")
    dense_model, model = (
        _Model(cell, inputs[model_key(cell)], device, weights, outlet, watcher) for cell in (other, asked)
    )
    reference = _measure_dense(dense_model, asked.model, pruning)
    return [
        reference.record,
        _measure_checkpoint(model, pruning, reference, [*remarks, *reference.remarks, *of_pair]),
    ]


@dataclass
class _Model:
    """One of the two models: how to load it, and where to store its record."""

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
        """Loads the model; it stays in memory only as long as the caller keeps it."""
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
        """Measures the machine's reference speed with the model."""
        with self.log.timed("reference speed"):
            return measure_reference_speed(loaded.model, loaded.placement)

    def decided(self, cell: Cell, choice: FirstTokenChoice | None) -> Cell:
        """Returns `cell` as it is run, with the first token decided."""
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
        """Makes and stores the record of the model; returns it as stored."""
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


def _measure_dense(dense: _Model, checkpoint: str, pruning: Pruning | None) -> _Dense:
    loaded = dense.load()
    remarks = [] if pruning is None else check_dense(pruning, loaded.identity, checkpoint)
    dense.outlet.check(dense.asked, loaded.identity, dense.inputs)
    reference_speed = dense.reference_speed(loaded)
    reference = DenseReference(keeps_head=True)  # the checkpoint's head may differ
    probe = dense.inputs.first_token
    choice = None if probe is None else choose_first_token(loaded, probe, dense.log)
    measured = measure_dense(loaded, dense.decided(dense.asked, choice), dense.inputs, reference, dense.log)
    add_size(measured, loaded, (), None)
    measured.remarks[:0] = [*loaded.remarks, *([choice.remark] if choice else [])]
    record = dense.put(dense.asked, measured, reference_speed=reference_speed, model=loaded.identity)
    if isinstance(loaded, LayeredModel):
        layered = loaded
        weight: Callable[[str], torch.Tensor] = loaded.dense_weight
        again: Callable[[LoadedModel], LoadedModel] = lambda _: layered  # noqa: E731
    else:
        kept = dense_weights(loaded.model)
        weight, again = kept.__getitem__, partial(_with_weights, kept)
    return _Dense(loaded.identity, reference, weight, again, reference_speed, record, choice, remarks)


def _with_weights(weights: Mapping[str, torch.Tensor], loaded: LoadedModel) -> LoadedModel:
    """Overwrites the weights of `loaded` and returns it."""
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            parameter.copy_(weights[name])
    return loaded


def _measure_checkpoint(
    model: _Model, pruning: Pruning | None, dense: _Dense | None, remarks: Sequence[str]
) -> Record:
    """Measures the model that was asked for.

    Args:
        model: the model, pruned or not.
        pruning: the contents of its `pruning.json`; None if it has none.
        dense: the dense model with which to compare it; None = no comparison.
        remarks: remarks on its folder and on the pair.
    """
    loaded = model.load()
    with model.log.timed("count zeros"):
        zeros = count_zeros(loaded.model, loaded.placement, find_pattern=pruning is None)
    identity = dense_identity(model.asked, pruning, dense.identity if dense else None, loaded.identity)
    cell = cell_of(model.asked, pruning, zeros, identity)
    if cell.is_dense:  # nothing was pruned, so it is a dense model itself, whatever it is compared with
        identity = loaded.identity
    model.outlet.check(cell, loaded.identity, model.inputs)
    collected = [*loaded.remarks, *remarks]
    if dense is None:
        reference_speed, reference = model.reference_speed(loaded), DenseReference()
        choice = _first_token(model, loaded, recorded_first_token(pruning))
    else:
        reference_speed, reference, choice = dense.reference_speed, dense.reference, dense.first_token
        collected += other_weights(loaded, dense.weight)
    if choice is not None:
        collected.append(choice.remark)
    run = model.decided(cell, choice)
    if cell.is_dense and dense is None:
        measured = measure_dense(loaded, run, model.inputs, reference, model.log)
    else:
        again = None if dense is None else partial(dense.again, loaded)
        measured = measure_pruned(loaded, run, model.inputs, reference, model.log, dense_again=again)
    measured.remarks += collected
    add_zeros(measured, loaded, cell, pruning, zeros)
    return model.put(
        cell,
        measured,
        reference_speed=reference_speed,
        model=identity,
        checkpoint=None if cell.is_dense else loaded.identity,
        parts=() if cell.is_dense or pruning is None else pruning.record.parts,
        modules=() if cell.is_dense else zeros.modules,
    )


def _first_token(model: _Model, loaded: LoadedModel, used: bool | None) -> FirstTokenChoice | None:
    """Decides on the first token without a dense model: as the prune `used` it, or measured on this model."""
    if model.inputs.first_token is None:
        return None
    if used is None:
        return choose_first_token(loaded, model.inputs.first_token, model.log, whose="this model's")
    begin = "begin" if used else "do not begin"
    return FirstTokenChoice(used, f"sequences {begin} with the tokenizer's first token, as in its {PRUNING}")


__all__ = ["Outlet", "measure_checkpoint"]
