"""One loaded model that is pruned again and again: whole in memory, or one decoder layer at a time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import torch

from methods.base import Placement, PruneResult, PruningMethod
from methods.contract import ModelState, check_contract
from suite.layered_contract import check_layered_contract
from suite.layered_model import load_layered_model
from suite.models import LoadedModel, load_model
from suite.scratch import scratch_folder

if TYPE_CHECKING:
    from methods.pattern import SparsityPattern
    from suite.cell import Cell
    from suite.preflight import Inputs


class Bench(Protocol):
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


class ResidentBench:
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
        """See `Bench.dense`."""
        if not self._is_dense:
            with torch.no_grad():
                for name, parameter in self.loaded.model.named_parameters():
                    parameter.copy_(self._before.weights[name])
        self._is_dense = False  # whoever gets the model may prune it
        return self.loaded

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """See `Bench.check`."""
        check_contract(method, pattern, self._before, self.loaded.model, result)

    def release(self) -> None:
        """There is nothing to spare."""


class LayeredBench:
    """Decoder layers stay in the model's files; pruned ones are written to a folder of their own.

    Args:
        cell: names the model.
        inputs: what the preflight found of it.
        device: where layers compute.
        placement: how it is pruned.
    """

    def __init__(self, cell: Cell, inputs: Inputs, device: torch.device, placement: Placement) -> None:
        self._unstaged = load_layered_model(cell, inputs)
        self._before = ModelState.of(self._unstaged.model, {})
        self._device = device
        self._batch_size = placement.batch_size
        self._staging = ExitStack()
        self.loaded = self._unstaged

    def dense(self) -> LoadedModel:
        """See `Bench.dense`."""
        self.release()
        folder = self._staging.enter_context(scratch_folder())
        self.loaded = self._unstaged.staged(folder, self._device, self._batch_size)
        return self.loaded

    def check(self, method: PruningMethod, pattern: SparsityPattern, result: PruneResult) -> None:
        """See `Bench.check`."""
        check_layered_contract(method, pattern, self._before, self.loaded, result)

    def release(self) -> None:
        """Removes the pruned layers."""
        self._staging.close()


__all__ = ["Bench", "LayeredBench", "ResidentBench"]
