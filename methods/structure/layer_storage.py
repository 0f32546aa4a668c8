"""What keeps the weights of decoder layers while they are not on the device that computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from methods.structure.decoder import DecoderLayer


class LayerStorage(Protocol):
    """Keeps the weights of decoder layers, and gives out copies that belong to the visitor.

    Tensors go by their dotted name inside the layer, and are laid out as the model stores them. `fetch` and
    `dense` are called from another thread while another layer is stored.
    """

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """All parameters and persistent buffers of a layer as they are now, on the CPU.

        Args:
            layer: which one.
            pinned: in memory that a GPU can read while others work.
        """
        ...

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Keeps new values of the parameters that hold a layer's targets."""
        ...

    def remember_dense(self) -> None:
        """Keeps the present weights of all targets for `dense` and `restore_dense`.

        A method inside another one remembers them too: what was remembered last is forgotten first.
        """
        ...

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """What the parameters that hold a layer's targets were when they were remembered; only to be read."""
        ...

    def restore_dense(self) -> None:
        """Puts the remembered weights of all targets back, and forgets them."""
        ...

    def forget_dense(self) -> None:
        """Forgets them."""
        ...

    def stamp(self, layer: DecoderLayer) -> object:
        """Differs from what it was before wherever the layer was stored or restored since."""
        ...


def target_parameters(layer: DecoderLayer) -> dict[str, torch.nn.Parameter]:
    """The parameters that hold a layer's targets, as they are in its module now, by name inside the layer."""
    names = {target.parameter_name.removeprefix(f"{layer.name}.") for target in layer.targets.values()}
    return {name: p for name, p in layer.module.named_parameters() if name in names}


__all__ = ["LayerStorage", "target_parameters"]
