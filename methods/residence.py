"""Where a model's decoder layers are while it is pruned, and how each comes to the device that computes.

Resident: the whole model is on the device. Every method walks the layers through `visiting`, so that a
placement which keeps them elsewhere needs no second way through any method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base import Placement
from methods.decoder import Decoder, DecoderLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Residence(ABC):
    """The decoder layers of one model, and the way in and out of the device.

    Attributes:
        placement: what was asked for.
        device: where layers compute.
    """

    placement: Placement
    device: torch.device

    @abstractmethod
    @contextmanager
    def before_layers(self) -> Iterator[None]:
        """What the model runs before its first decoder layer, and that layer, are on the device meanwhile."""
        yield

    @abstractmethod
    @contextmanager
    def visiting(self, layer: DecoderLayer) -> Iterator[None]:
        """`layer` is on the device meanwhile; what was written to its targets is kept."""
        yield

    @abstractmethod
    def remember_dense(self) -> None:
        """Keeps the present weights of all targets for `dense_weights` and `restore_dense`."""

    @abstractmethod
    def dense_weights(self, layer: DecoderLayer) -> Mapping[str, Tensor]:
        """Target name -> its remembered weight `[out, in]`, on the device; `layer` is being visited."""

    @abstractmethod
    def restore_dense(self) -> None:
        """Puts the remembered weights of all targets back, and forgets them."""


class Resident(Residence):
    """The whole model is on the device."""

    def __init__(self, model: PreTrainedModel, decoder: Decoder, placement: Placement) -> None:
        self.placement = placement
        self.device = next(decoder.layers[0].module.parameters()).device
        self._decoder = decoder
        self._dense: dict[str, Tensor] = {}

    @contextmanager
    def before_layers(self) -> Iterator[None]:
        """Everything is there."""
        yield

    @contextmanager
    def visiting(self, layer: DecoderLayer) -> Iterator[None]:
        """It is there."""
        yield

    def remember_dense(self) -> None:
        """Copies them."""
        self._dense = {target.name: target.weight.clone() for _, _, target in self._decoder.targets()}

    def dense_weights(self, layer: DecoderLayer) -> Mapping[str, Tensor]:
        """The copies."""
        return {name: self._dense[name] for name in layer.targets}

    def restore_dense(self) -> None:
        """Writes the copies back, each of which is dropped at once."""
        for _, _, target in self._decoder.targets():
            target.weight.copy_(self._dense.pop(target.name))


@contextmanager
def residing(model: PreTrainedModel, decoder: Decoder, placement: Placement) -> Iterator[Residence]:
    """The residence that `placement` asks for, while the body prunes the model."""
    yield Resident(model, decoder, placement)


__all__ = ["Residence", "Resident", "residing"]
