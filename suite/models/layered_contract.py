"""Checks the contract of `methods.contract` for a model whose layers are in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from methods.contract import ModelState, check_counts, check_state, check_weights
from methods.placement.layer_storage import CheckpointStorage
from methods.structure.decoder import DecoderLayer, read_decoder
from suite.models.layered import LayeredModel, outside_layers

if TYPE_CHECKING:
    from methods.base import PruneResult, PruningMethod
    from methods.masks.pattern import SparsityPattern


def check_layered_contract(
    method: PruningMethod,
    pattern: SparsityPattern,
    before: ModelState,
    loaded: LayeredModel,
    result: PruneResult,
) -> None:
    """Raises `ContractError` if `method` broke the contract on a staged model. Reads it layer by layer.

    Args:
        method: the method that pruned the model.
        pattern: the requested sparsity pattern.
        before: the model's state before pruning; its weights are not used.
        loaded: the pruned model.
        result: the result that the method returned.
    """
    decoder, storage = read_decoder(loaded.model), loaded.storage
    check_state(before, loaded.model, result)
    for name, value in outside_layers(loaded.model, decoder).items():
        dense = loaded.files.read(loaded.names[name], dtype=value.dtype)
        check_weights(method, (), {name: dense}, {name: value}, result)
    source = CheckpointStorage(loaded.files, None, loaded.names)
    for layer in decoder.layers:
        dense_layer, weights = source.fetch(layer), storage.fetch(layer)
        check_weights(
            method, layer.targets.values(), _in_full(layer, dense_layer), _in_full(layer, weights), result
        )
    check_counts(method, pattern, loaded.model, result)


def _in_full(layer: DecoderLayer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{layer.name}.{name}": tensor for name, tensor in tensors.items()}


__all__ = ["check_layered_contract"]
