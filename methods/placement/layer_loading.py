"""Where a model's decoder layers are while it is pruned, and how each comes to the device that computes.

Resident: the whole model is on the device. Onloaded: one decoder layer at a time visits it. Every method
walks the layers through `loaded`, so that neither needs a second way through any method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.base import Placement
from methods.placement.layer_storage import HostStorage
from methods.placement.prefetch import OnDevice, Prefetch
from methods.structure.decoder import Decoder, DecoderLayer, target_parameters

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
    def before_layers(self, *, first_layer: bool) -> Iterator[None]:
        """What the model runs before its decoder layers is on the device meanwhile.

        Args:
            first_layer: so is its first decoder layer; no layer is being visited then.
        """
        yield

    @abstractmethod
    @contextmanager
    def around_layers(self) -> Iterator[None]:
        """All of the model but its decoder layers is on the device meanwhile, the output head too."""
        yield

    @abstractmethod
    @contextmanager
    def loaded(self, layer: DecoderLayer, *, read_only: bool = False) -> Iterator[None]:
        """`layer` is on the device meanwhile; what was written to its targets is kept.

        Args:
            layer: which one.
            read_only: nothing is written, so there is nothing to keep.
        """
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
    def before_layers(self, *, first_layer: bool) -> Iterator[None]:
        """Everything is there."""
        yield

    @contextmanager
    def around_layers(self) -> Iterator[None]:
        """It is there."""
        yield

    @contextmanager
    def loaded(self, layer: DecoderLayer, *, read_only: bool = False) -> Iterator[None]:
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


class Onloaded(Residence):
    """Layers stay in their storage; one at a time visits the device, the next one fetched meanwhile.

    The layer's modules hold copies of its parameters during a visit, and the parameters they held before,
    the same objects, after it.
    """

    def __init__(self, model: PreTrainedModel, decoder: Decoder, placement: Placement) -> None:
        """Fetches nothing yet.

        Raises:
            InputError: the layers shall stay in the host's memory and are not there.
        """
        self.placement = placement
        self.device = placement.device or model.get_input_embeddings().weight.device
        self._model = model
        self._decoder = decoder
        self._storage = placement.storage or HostStorage(decoder)
        self._prefetch = Prefetch(self._storage, self.device)
        self._remembers = False
        self._present: OnDevice | None = None

    def close(self) -> None:
        """Ends the thread that fetches, and forgets what was remembered."""
        self._prefetch.close()
        if self._remembers:
            self._storage.forget_dense()

    @contextmanager
    def before_layers(self, *, first_layer: bool) -> Iterator[None]:
        """Brings all that is no decoder layer and no output head, and the first layer if it is wanted."""
        head = self._model.get_output_embeddings()
        if not first_layer:
            with _holding(self._outside(but=head)):
                yield
            return
        first = self._decoder.layers[0]
        taken = self._prefetch.take(first, dense=self._remembers)
        with _holding(self._outside(but=head)), _holding(_layer_tensors(first, taken, self.device)):
            yield
        # Looking at it once does not change it, and it is the first that will be visited.
        self._prefetch.give_back(taken)

    @contextmanager
    def around_layers(self) -> Iterator[None]:
        """Brings it."""
        with _holding(self._outside()):
            yield

    @contextmanager
    def loaded(self, layer: DecoderLayer, *, read_only: bool = False) -> Iterator[None]:
        """Brings it, and stores it at the end unless it was `read_only` or the body failed."""
        taken = self._prefetch.take(layer, dense=self._remembers)
        if layer.index + 1 < len(self._decoder.layers):
            self._prefetch.start(self._decoder.layers[layer.index + 1], dense=self._remembers)
        self._present = taken
        try:
            with _holding(_layer_tensors(layer, taken, self.device)):
                yield
                if not read_only:
                    weights = {name: p.detach() for name, p in target_parameters(layer).items()}
                    self._storage.store(layer, weights)
        finally:
            self._present = None

    def remember_dense(self) -> None:
        """The storage keeps them."""
        self._storage.remember_dense()
        self._remembers = True

    def dense_weights(self, layer: DecoderLayer) -> Mapping[str, Tensor]:
        """They came with the layer."""
        present = self._present
        assert present is not None and present.layer is layer and present.dense is not None
        weights = {}
        for name, target in layer.targets.items():
            stored = present.dense[target.parameter_name.removeprefix(f"{layer.name}.")]
            weights[name] = target.turned(stored if target.expert is None else stored[target.expert])
        return weights

    def restore_dense(self) -> None:
        """The storage puts them back."""
        self._storage.restore_dense()
        self._remembers = False

    def _outside(self, but: nn.Module | None = None) -> dict[tuple[nn.Module, str], Tensor]:
        """(module, attribute) -> what it holds, on the device: all beside the decoder layers and `but`."""
        apart = {id(m) for layer in self._decoder.layers for m in layer.module.modules()} | {id(but)}
        owners = [module for module in self._model.modules() if id(module) not in apart]
        held = [
            (owner, name, value)
            for owner in owners
            for name, value in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
        ]
        # Tied tensors come once.
        brought = {id(value): value for _, _, value in held}
        brought = {key: value.detach().to(self.device) for key, value in brought.items()}
        return {(owner, name): brought[id(value)] for owner, name, value in held}


def _layer_tensors(
    layer: DecoderLayer, taken: OnDevice, device: torch.device
) -> dict[tuple[nn.Module, str], Tensor]:
    """(module, attribute) -> what the layer holds there during its visit."""
    # Buffers that no checkpoint holds have their values in the module; all others come with the layer.
    own = {
        name: buffer.to(device) for name, buffer in layer.module.named_buffers() if name not in taken.tensors
    }
    places = {}
    for name, tensor in (own | dict(taken.tensors)).items():
        owner, _, attribute = name.rpartition(".")
        places[layer.module.get_submodule(owner), attribute] = tensor
    return places


@contextmanager
def _holding(places: Mapping[tuple[nn.Module, str], Tensor]) -> Iterator[None]:
    """The modules hold other parameters and buffers while the body runs, and their own afterwards."""
    own: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []
    try:
        for (module, name), tensor in places.items():
            if (parameter := module._parameters.get(name)) is not None:
                own.append((module._parameters, name, parameter))  # type: ignore[arg-type]
                visitor = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
                module._parameters[name] = visitor
            else:
                own.append((module._buffers, name, module._buffers[name]))
                module._buffers[name] = tensor
        yield
    finally:
        for held, name, value in own:
            held[name] = value


@contextmanager
def residing(model: PreTrainedModel, decoder: Decoder, placement: Placement) -> Iterator[Residence]:
    """The residence that `placement` asks for, while the body prunes the model.

    Raises:
        InputError: the layers shall stay in the host's memory and are not there.
    """
    if placement.weights == "resident":
        yield Resident(model, decoder, placement)
        return
    residence = Onloaded(model, decoder, placement)
    try:
        yield residence
    finally:
        residence.close()


__all__ = ["Onloaded", "Residence", "Resident", "residing"]
