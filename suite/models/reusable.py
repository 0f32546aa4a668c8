"""A loaded model that is pruned repeatedly: whole in memory, or one decoder layer at a time."""

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
    """A model whose dense weights can be restored."""

    @property
    def loaded(self) -> LoadedModel:
        """The model in its current state."""
        ...

    def dense(self) -> LoadedModel:
        """Restores the dense weights and returns the model."""
        ...

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """Raises `ContractError` if `method` broke the contract when it pruned the model."""
        ...

    def release(self) -> None:
        """Frees what only the pruned model needs; call `dense` before using the model again."""
        ...


class ResidentModel:
    """The whole model on its device, with a copy of its dense weights on the host.

    Args:
        cell: the cell, which determines the model.
        device: the device to put it on.
        placement: the placement used for pruning.
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
        self._is_dense = False  # the caller may prune the model
        return self.loaded

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """See `ReusableModel.check`."""
        check_contract(method, pattern, self._before, self.loaded.model, result)

    def release(self) -> None:
        """Does nothing: there is nothing to free."""


class OnloadedModel:
    """A model whose decoder layers stay in its files; pruned layers are written to a separate folder.

    Args:
        cell: the cell, which determines the model.
        folder_digest: digest of the model's files, computed by the preflight.
        device: the device on which layers compute.
        placement: the placement used for pruning; only its batch size is read.
        pruned_layers: an empty folder for pruned layers, used by this model only; None = a temporary folder.
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
