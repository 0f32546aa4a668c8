"""Runs a model's own forward, wherever its decoder layers are."""

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
    """Makes `model` callable on the device that `placement` names while the body runs.

    Onloaded layers are loaded anew in each forward. For many sequences that are known in advance, use a
    `methods.engine.hidden_states.LayerStream` instead, which loads every layer once.

    Raises:
        InputError: layers are to be kept in host memory, but are on another device.
        StructureError: layers are onloaded, and the model's structure cannot be read.
    """
    if placement.weights == "resident":
        yield
        return
    decoder = read_decoder(model)
    with residing(model, decoder, placement) as residence, residence.around_layers(), ExitStack() as patches:
        for layer in decoder.layers:
            patches.enter_context(replaced_forward(layer.module, _loading_forward(residence, layer)))
        yield


def _loading_forward(residence: Residence, layer: DecoderLayer) -> Callable[..., Any]:
    forward = layer.module.forward

    def load_and_run(*args: Any, **kwargs: Any) -> Any:
        with residence.loaded(layer, read_only=True):
            return forward(*args, **kwargs)

    return load_and_run


__all__ = ["own_forward"]
