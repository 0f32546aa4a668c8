"""What the cells of one model share: the loaded model, dense weights, the machine's reference speed."""

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
class _Held:
    """The model that is there, and for which cells."""

    key: tuple[object, ...]
    model: ReusableModel
    reference_speed: ReferenceSpeed | None = None


class ModelSession:
    """Holds one model at a time and gives it out dense, cell after cell.

    Args:
        device: where layers compute.
        inputs: what the cells read, by model (`suite.planning.preflight.preflight`).
        placement: where models are (`resident`: on `device`; `onload`: in their files), and the batch size of
            every prune.
        shared: what cells share beyond this process; None = nothing is kept in files.
        pruned_layers: for `onload`, an empty folder where a single prune leaves them; None = they go with it.
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
        self._held: _Held | None = None
        self._reference: tuple[object, DenseReference] | None = None
        self._first_tokens: dict[object, FirstTokenChoice] = {}

    def dense_model(self, cell: Cell) -> LoadedModel:
        """The cell's model with its dense weights; the caller may prune it."""
        key = loaded_key(cell)
        if self._held is None or self._held.key != key:
            self.discard()  # the old model goes before the new one comes
            self._held = _Held(key, self._load(cell))
        return self._held.model.dense()

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """Raises `ContractError` if the current model, pruned by `method`, breaks a promise.

        Args:
            method: what pruned it.
            pattern: what was to be removed.
            result: what the method says it did.
        """
        self._current.model.check(method, pattern, result)

    def reference_speed(self) -> ReferenceSpeed:
        """The machine's reference speed with the current model, measured once."""
        held = self._current
        if held.reference_speed is None:
            held.reference_speed = measure_reference_speed(
                held.model.loaded.model, held.model.loaded.placement
            )
        return held.reference_speed

    def first_token(self, cell: Cell, log: PhaseLog) -> FirstTokenChoice | None:
        """What was chosen for the cell's model, which has to be there, dense; None where it is no question.

        It is measured once, and holds for all cells of the model.
        """
        probe, key = self.inputs(cell).first_token, loaded_key(cell)
        if probe is None or "auto" not in cell.first_tokens:
            return None
        if key not in self._first_tokens:
            self._first_tokens[key] = choose_first_token(self._current.model.loaded, probe, log)
        return self._first_tokens[key]

    def reference(self, cell: Cell) -> DenseReference:
        """What is known of the cell's dense model; what is not yet, its caller adds.

        It outlives `discard`: that a pruned model is in doubt says nothing against the dense one.
        """
        key = loaded_key(cell)
        if self._reference is None or self._reference[0] != key:
            self._reference = (key, DenseReference())
        return self._reference[1]

    def inputs(self, cell: Cell) -> Inputs:
        """What the cells of this model read: calibration sets, texts, tasks and prompts."""
        return self._inputs[model_key(cell)]

    def share(self, cell: Cell, planned: Cell) -> CellShare:
        """What the cell shares with others; its model has to be there.

        Args:
            cell: as it is run.
            planned: as it stands in the plan, which may leave the first token to the model.
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
        """A cell is done: what only its pruned model needs may go."""
        if self._held is not None:
            self._held.model.release()

    def discard(self) -> None:
        """Forgets the model: after a failure nobody knows what state it is in."""
        self.release()
        self._held = None

    def _load(self, cell: Cell) -> ReusableModel:
        if self.placement.weights == "resident":
            return ResidentModel(cell, self.device, self.placement)
        digest = self.inputs(cell).folder_digest
        return OnloadedModel(cell, digest, self.device, self.placement, self._pruned_layers)

    @property
    def _current(self) -> _Held:
        assert self._held is not None, "dense_model comes first"
        return self._held


__all__ = ["ModelSession"]
