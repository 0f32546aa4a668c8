"""One loaded model that is pruned again and again: whole in memory, or one decoder layer at a time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from methods.base import Placement, PruneResult, PruningMethod
from methods.contract import ModelState, check_contract
from suite.machine.scratch import scratch_folder
from suite.models.layered import load_layered_model
from suite.models.layered_contract import check_layered_contract
from suite.models.loading import LoadedModel, load_model

if TYPE_CHECKING:
    from methods.masks.pattern import SparsityPattern
    from suite.cell import Cell


class ReusableModel(Protocol):
    """A model, and the way back to its dense weights."""

    @property
    def loaded(self) -> LoadedModel:
        """The model as it is now."""
        ...

    def dense(self) -> LoadedModel:
        """The model with its dense weights, whatever was done to it before."""
        ...

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """Raises `ContractError` if the model, pruned by `method`, breaks a promise."""
        ...

    def release(self) -> None:
        """What only the pruned model needs may go; `dense` comes before the model is used again."""
        ...


class ResidentModel:
    """The whole model on its device, a copy of its dense weights on the host.

    Args:
        cell: names the model.
        device: where it is put.
        placement: how it is pruned.
    """

    def __init__(self, cell: Cell, device: torch.device, placement: Placement) -> None:
        self.loaded = load_model(
            cell.model,
            revision=cell.revision,
            dtype=cell.dtype,
            device=device,
            trust_remote_code=cell.trust_remote_code,
            placement=placement,
        )
        self._before = ModelState.of(self.loaded.model)
        self._is_dense = True

    def dense(self) -> LoadedModel:
        """See `ReusableModel.dense`."""
        if not self._is_dense:
            with torch.no_grad():
                for name, parameter in self.loaded.model.named_parameters():
                    parameter.copy_(self._before.weights[name])
        self._is_dense = False  # whoever gets the model may prune it
        return self.loaded

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """See `ReusableModel.check`."""
        check_contract(method, pattern, self._before, self.loaded.model, result)

    def release(self) -> None:
        """There is nothing to spare."""


class OnloadedModel:
    """Decoder layers stay in the model's files; pruned ones are written to a folder of their own.

    Args:
        cell: names the model.
        folder_digest: of its files, as the preflight found it.
        device: where layers compute.
        placement: how it is pruned.
        pruned_layers: an empty folder for them, which nobody else uses; None = one that goes with the model.
    """

    def __init__(
        self,
        cell: Cell,
        folder_digest: str | None,
        device: torch.device,
        placement: Placement,
        pruned_layers: Path | None = None,
    ) -> None:
        self._unstaged = load_layered_model(cell, folder_digest)
        self._before = ModelState.of(self._unstaged.model, {})
        self._device = device
        self._batch_size = placement.batch_size
        self._pruned_layers = pruned_layers
        self._staging = ExitStack()
        self.loaded = self._unstaged

    def dense(self) -> LoadedModel:
        """See `ReusableModel.dense`."""
        self.release()
        folder = self._pruned_layers or self._staging.enter_context(scratch_folder())
        self.loaded = self._unstaged.staged(folder, self._device, self._batch_size)
        return self.loaded

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """See `ReusableModel.check`."""
        check_layered_contract(method, pattern, self._before, self.loaded, result)

    def release(self) -> None:
        """Removes the pruned layers."""
        self._staging.close()


__all__ = ["OnloadedModel", "ResidentModel", "ReusableModel"]
