"""Reads a model's sizes: its targets, which of them share an input, and the width of its attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.work import LayerShape, Matrix, Workload
from methods.base import CalibrationSet, Placement
from methods.engine.hidden_states import LayerStream, at_rest
from methods.engine.statistics import InputNorms, SharedInputs
from methods.errors import InputError
from methods.placement.layer_loading import residing
from methods.structure.decoder import Block, DecoderLayer, read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOKENS = 8
"""Enough tokens to find out which modules are called with the same tensor."""


def workload(
    model: PreTrainedModel, n_samples: int, seqlen: int, placement: Placement = Placement()
) -> Workload:
    """Returns the sizes of `model` and of a calibration set.

    Which targets share an input is observed in a forward of a few tokens, once for all layers of equal
    shapes.

    Raises:
        InputError: the model has experts; its shapes do not tell how many tokens reach each expert.
    """
    decoder = read_decoder(model)
    for _, _, target in decoder.targets():
        if target.expert is not None:
            raise InputError(
                f"{type(model).__name__}: no floor for a mixture of experts; expected dense decoder layers"
            )
    probe = CalibrationSet(torch.zeros(1, PROBE_TOKENS, dtype=torch.int64), "zeros")
    seen: dict[tuple[object, ...], LayerShape] = {}
    layers = []
    with at_rest(model), residing(model, decoder, placement) as residence:
        stream = LayerStream.of_calibration(model, decoder, probe, residence)
        for layer in decoder.layers:
            key = tuple(
                (target.name.removeprefix(layer.name), target.shape) for target in layer.targets.values()
            )
            if key not in seen:
                with residence.loaded(layer):
                    seen[key] = _layer_shape(stream, layer)
            layers.append(seen[key])
    return Workload(tuple(layers), n_samples, seqlen, model.dtype.itemsize)


def _layer_shape(stream: LayerStream, layer: DecoderLayer) -> LayerShape:
    shared = SharedInputs(layer.targets, InputNorms.of)
    with shared.collecting():
        stream.forward(layer, 0)
    leader = {member: first for first, members in shared.groups.items() for member in members}
    matrices = tuple(
        Matrix(*target.shape, leads=leader[name] == name, from_block_input=leader[name] == leader[first])
        for block in layer.blocks
        for first in [next(iter(block.targets))]
        for name, target in block.targets.items()
    )
    return LayerShape(matrices, _attention_width(layer.blocks[0]))


def _attention_width(block: Block) -> int:
    """Number of inputs of the last matrix of the attention, which reads the concatenated heads."""
    return list(block.targets.values())[-1].n_inputs


__all__ = ["workload"]
