"""How far a rebuild of one block should go: the share of its swaps that leaves the smallest error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from methods.decoder import Block, DecoderLayer
from methods.pattern import require_finite
from methods.stream import LayerStream

SEARCHED_RATIOS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""From the initial mask itself to every profitable swap; 0.01 and 0.1 are the authors'."""


def masked_block_errors(
    stream: LayerStream,
    layer: DecoderLayer,
    block: Block,
    dense: Mapping[str, Tensor],
    full: Mapping[str, Tensor],
    masks: Sequence[Mapping[str, Tensor]],
) -> list[float]:
    """The error that a block makes under each of several masks, on what it reads in the layer as it is now.

    Args:
        stream: at the input of `layer`; all its batches are used.
        layer: the decoder layer.
        block: one of its blocks.
        dense: target name -> dense weight `[out, in]`: what the block should do.
        full: target name -> the weight of each target where its mask is True.
        masks: target name -> bool `[out, in]`, one mapping a candidate.

    Returns:
        For each candidate sum ||B_masked(a) - B_dense(a)||^2 over all batches.

    Raises:
        NonFiniteError: an output is not finite; names the module.
    """
    errors = torch.zeros(len(masks), dtype=torch.float64)
    for batch in range(stream.n_batches):
        call = stream.call_of(layer, batch, block)
        wanted = block.run(dense, call.args, call.kwargs).float()
        for candidate, mask in enumerate(masks):
            weights = {name: weight.masked_fill(~mask[name], 0) for name, weight in full.items()}
            output = block.run(weights, call.args, call.kwargs)
            require_finite(output, f"{layer.name} ({block.kind})", "its outputs under a rebuilt mask")
            errors[candidate] += float((output.float() - wanted).square().sum(dtype=torch.float64))
    return errors.tolist()


__all__ = ["SEARCHED_RATIOS", "masked_block_errors"]
