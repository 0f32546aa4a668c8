"""Copies a pruned model's weights layer by layer, and writes them into the dense model again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base import Placement, PruneResult
from methods.placement.layer_loading import residing
from methods.structure.decoder import DecoderLayer, read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def pruned_weights(
    model: PreTrainedModel, placement: Placement
) -> Iterator[tuple[DecoderLayer, dict[str, Tensor]]]:
    """Copies the target weights of each decoder layer.

    Args:
        model: the pruned model.
        placement: where its layers are.

    Yields:
        A layer, and target name -> weight `[out, in]` on the CPU.
    """
    decoder = read_decoder(model)
    with torch.no_grad(), residing(model, decoder, placement) as residence:
        for layer in decoder.layers:
            with residence.loaded(layer, read_only=True):
                copies = {
                    name: target.weight.to("cpu", copy=True).contiguous()
                    for name, target in layer.targets.items()
                }
            yield layer, copies


def put_pruned_weights(
    model: PreTrainedModel,
    placement: Placement,
    result: PruneResult,
    weights_of: Callable[[DecoderLayer], Mapping[str, Tensor]] | None = None,
) -> None:
    """Turns a dense model into the pruned model of an earlier prune, equal to the bit.

    Args:
        model: the dense model, changed in place.
        placement: where its layers are.
        result: the result of that prune, for its masks.
        weights_of: returns a layer's pruned weights as `pruned_weights` yields them; None if the surviving
            weights kept their dense values.
    """
    decoder = read_decoder(model)
    with torch.no_grad(), residing(model, decoder, placement) as residence:
        for layer in decoder.layers:
            with residence.loaded(layer):
                changed = {} if weights_of is None else weights_of(layer)
                for name, target in layer.targets.items():
                    weight = changed[name].to(target.device) if name in changed else target.weight
                    target.write(weight, target.unpack(result.keep[target.mask_name], target.device))


__all__ = ["pruned_weights", "put_pruned_weights"]
