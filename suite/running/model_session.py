"""Keeps what the cells of one model share: the loaded model, dense weights, the reference speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.base import Placement
from suite.evaluation.dense_reference import DenseReference
from suite.evaluation.first_token import FirstTokenChoice, choose_first_token
from suite.evaluation.inputs import Inputs, ModelKey, loaded_key, model_key
from suite.evaluation.speed.reference_speed import measure_reference_speed
from suite.models.reusable import OnloadedModel, ResidentModel, ReusableModel
from suite.sharing import CellShare, SharedWork

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from methods.base import PruneResult, PruningMethod
    from methods.masks.pattern import SparsityPattern
    from suite.cell import Cell
    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel
    from suite.results.records.record import ReferenceSpeed


@dataclass
class _Loaded:
    """The model in memory, and the key of the cells that it is for."""

    key: tuple[object, ...]
    model: ReusableModel
    reference_speed: ReferenceSpeed | None = None


class ModelSession:
    """Keeps one model in memory at a time and provides it with dense weights for one cell after another.

    Args:
        device: the device on which layers compute.
        inputs: what the cells read, by model (`suite.planning.preflight.preflight`).
        placement: where the weights are kept (`resident`: on `device`; `onload`: in their files), and the
            batch size of every prune.
        shared: results that cells share across processes; None = nothing is kept in files.
        pruned_layers: for `onload`, an empty folder in which a single prune leaves its pruned layers;
            None = they are deleted with the model.
    """

    def __init__(
        self,
        device: torch.device,
        inputs: Mapping[ModelKey, Inputs],
        placement: Placement = Placement(),
        shared: SharedWork | None = None,
        pruned_layers: Path | None = None,
    ) -> None:
        self.device = device
        self.placement = placement
        self._inputs = inputs
        self._shared = shared or SharedWork()
        self._pruned_layers = pruned_layers
        self._loaded: _Loaded | None = None
        self._reference: tuple[object, DenseReference] | None = None
        self._first_tokens: dict[object, FirstTokenChoice] = {}

    def dense_model(self, cell: Cell) -> LoadedModel:
        """Returns the cell's model with its dense weights; the caller may prune it."""
        key = loaded_key(cell)
        if self._loaded is None or self._loaded.key != key:
            self.discard()  # free the old model before the new one is loaded
            self._loaded = _Loaded(key, self._load(cell))
        return self._loaded.model.dense()

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """Raises `ContractError` if the current model, pruned by `method`, violates the method's contract.

        Args:
            method: the method that pruned it.
            pattern: the sparsity pattern that was asked for.
            result: what the method reported.
        """
        self._current.model.check(method, pattern, result)

    def reference_speed(self) -> ReferenceSpeed:
        """Returns the machine's reference speed with the current model; measures it on the first call."""
        current = self._current
        if current.reference_speed is None:
            current.reference_speed = measure_reference_speed(
                current.model.loaded.model, current.model.loaded.placement
            )
        return current.reference_speed

    def first_token(self, cell: Cell, log: PhaseLog) -> FirstTokenChoice | None:
        """Returns whether the cell's model gets its first token; None if the cell does not leave that open.

        Measures it once for all cells of the model, which must be the current one, with dense weights.
        """
        probe, key = self.inputs(cell).first_token, loaded_key(cell)
        if probe is None or "auto" not in cell.first_tokens:
            return None
        if key not in self._first_tokens:
            self._first_tokens[key] = choose_first_token(self._current.model.loaded, probe, log)
        return self._first_tokens[key]

    def reference(self, cell: Cell) -> DenseReference:
        """Returns what has been measured of the cell's dense model; the caller adds what is missing.

        It survives `discard`: a failure with the pruned model does not affect the dense model's results.
        """
        key = loaded_key(cell)
        if self._reference is None or self._reference[0] != key:
            self._reference = (key, DenseReference())
        return self._reference[1]

    def inputs(self, cell: Cell) -> Inputs:
        """Returns what the cells of this model read: calibration sets, texts, tasks and prompts."""
        return self._inputs[model_key(cell)]

    def share(self, cell: Cell, planned: Cell) -> CellShare:
        """Returns what the cell shares with others; its model must be the current one.

        Args:
            cell: the cell as it is run.
            planned: the cell as planned, in which the first token may still be undecided.
        """
        return CellShare(
            self._shared,
            cell,
            planned,
            self._current.model.loaded,
            self.device,
            self.inputs(cell),
            self.reference(cell),
        )

    def release(self) -> None:
        """Frees what only the pruned model of a finished cell needs."""
        if self._loaded is not None:
            self._loaded.model.release()

    def discard(self) -> None:
        """Drops the model, for example because a failure left it in an unknown state."""
        self.release()
        self._loaded = None

    def _load(self, cell: Cell) -> ReusableModel:
        if self.placement.weights == "resident":
            return ResidentModel(cell, self.device, self.placement)
        digest = self.inputs(cell).folder_digest
        return OnloadedModel(cell, digest, self.device, self.placement, self._pruned_layers)

    @property
    def _current(self) -> _Loaded:
        assert self._loaded is not None, "call dense_model first"
        return self._loaded


__all__ = ["ModelSession"]
