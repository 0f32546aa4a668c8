"""What the cells of one model share: the loaded model, its dense weights and the machine's floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from methods.base import Placement
from methods.contract import ModelState
from suite.cell import Cell
from suite.evaluation.efficiency import machine_floor
from suite.measurement.reference import DenseReference
from suite.models import LoadedModel, load_model
from suite.preflight import Inputs, ModelKey, model_key
from suite.results.record import MachineFloor
from suite.sharing import CellShare, SharedWork


@dataclass
class _Bench:
    """One loaded model, and what it was before any prune."""

    key: tuple[object, ...]
    loaded: LoadedModel
    dense: ModelState
    pruned: bool = False
    floor: MachineFloor | None = None


class Workbench:
    """Holds one model at a time and gives it out dense, cell after cell.

    Args:
        device: where models are put.
        inputs: what the cells read, by model (`suite.preflight.preflight`).
        placement: the batch size of every prune.
        shared: what cells share beyond this process; None = nothing is kept in files.
    """

    def __init__(
        self,
        device: torch.device,
        inputs: Mapping[ModelKey, Inputs],
        placement: Placement = Placement(),
        shared: SharedWork | None = None,
    ) -> None:
        self.device = device
        self.placement = placement
        self._inputs = inputs
        self._shared = shared or SharedWork()
        self._bench: _Bench | None = None
        self._reference: tuple[object, DenseReference] | None = None

    def dense_model(self, cell: Cell) -> tuple[LoadedModel, ModelState]:
        """The cell's model with its dense weights, and the state to hold it to after a prune.

        It counts as pruned from then on: the next call puts the dense weights back.
        """
        key = _key(cell)
        if self._bench is None or self._bench.key != key:
            self._bench = None  # the old model goes before the new one comes
            loaded = load_model(
                cell.model,
                revision=cell.revision,
                dtype=cell.dtype,
                device=self.device,
                trust_remote_code=cell.trust_remote_code,
            )
            self._bench = _Bench(key, loaded, ModelState.of(loaded.model))
        bench = self._bench
        if bench.pruned:
            with torch.no_grad():
                for name, parameter in bench.loaded.model.named_parameters():
                    parameter.copy_(bench.dense.weights[name])
        bench.pruned = True
        return bench.loaded, bench.dense

    def floor(self) -> MachineFloor:
        """The machine's floor with the current model, measured once."""
        bench = self._current
        if bench.floor is None:
            bench.floor = machine_floor(bench.loaded.model, self.placement)
        return bench.floor

    def reference(self, cell: Cell) -> DenseReference:
        """What is known of the cell's dense model; what is not yet, its caller adds.

        It outlives `discard`: that a pruned model is in doubt says nothing against the dense one.
        """
        key = _key(cell)
        if self._reference is None or self._reference[0] != key:
            self._reference = (key, DenseReference())
        return self._reference[1]

    def inputs(self, cell: Cell) -> Inputs:
        """What the cells of this model read: calibration sets, texts, tasks and prompts."""
        return self._inputs[model_key(cell)]

    def share(self, cell: Cell) -> CellShare:
        """What the cell shares with others; its model has to be there."""
        loaded, reference = self._current.loaded, self.reference(cell)
        return CellShare(
            self._shared, cell, loaded, self.device, self.placement, self.inputs(cell), reference
        )

    def discard(self) -> None:
        """Forgets the model: after a failure nobody knows what state it is in."""
        self._bench = None

    @property
    def _current(self) -> _Bench:
        assert self._bench is not None, "dense_model comes first"
        return self._bench


def _key(cell: Cell) -> tuple[object, ...]:
    """Equal for cells whose dense model is the same."""
    return (cell.model, cell.revision, cell.dtype, cell.trust_remote_code, cell.threads)


__all__ = ["Workbench"]
