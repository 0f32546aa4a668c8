"""Lets a model run by its own forward, wherever its decoder layers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from methods.base import Placement
from methods.placement.layer_loading import Residence, residing
from methods.structure.decoder import DecoderLayer, read_decoder
from methods.structure.forward_override import replaced_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def own_forward(model: PreTrainedModel, placement: Placement) -> Iterator[None]:
    """While the body runs, `model` can be called, and is on the device that `placement` names.

    Layers that are onloaded visit the device in each forward anew. Where many sequences are known beforehand,
    a `methods.engine.hidden_states.LayerStream` brings every layer once.

    Raises:
        InputError: the layers shall stay in the host's memory and are not there.
        StructureError: they are onloaded, and the model's structure cannot be read.
    """
    if placement.weights == "resident":
        yield
        return
    decoder = read_decoder(model)
    with residing(model, decoder, placement) as residence, residence.around_layers(), ExitStack() as patches:
        for layer in decoder.layers:
            patches.enter_context(replaced_forward(layer.module, _visiting(residence, layer)))
        yield


def _visiting(residence: Residence, layer: DecoderLayer) -> Callable[..., Any]:
    forward = layer.module.forward

    def visit(*args: Any, **kwargs: Any) -> Any:
        with residence.loaded(layer, read_only=True):
            return forward(*args, **kwargs)

    return visit


__all__ = ["own_forward"]
