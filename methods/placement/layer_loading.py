"""Residences, which know where decoder layers are and bring them to the device that computes.

`Resident`: the whole model is on the device. `Onloaded`: one decoder layer at a time is loaded onto it. Every
method goes through the layers by `Residence.loaded`, so that the same code works for both.
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
    """Brings the decoder layers of one model to the device and back.

    Attributes:
        placement: the requested placement.
        device: the device on which layers compute.
    """

    placement: Placement
    device: torch.device

    @abstractmethod
    @contextmanager
    def before_layers(self, *, first_layer: bool) -> Iterator[None]:
        """Keeps on the device, while the body runs, what the model runs before its decoder layers.

        Args:
            first_layer: whether the first decoder layer is needed too. No layer may be loaded meanwhile.
        """
        yield

    @abstractmethod
    @contextmanager
    def around_layers(self) -> Iterator[None]:
        """Keeps all of the model except its decoder layers on the device while the body runs."""
        yield

    @abstractmethod
    @contextmanager
    def loaded(self, layer: DecoderLayer, *, read_only: bool = False) -> Iterator[None]:
        """Keeps `layer` on the device while the body runs, then stores what was written to its targets.

        Args:
            layer: the layer to load.
            read_only: whether the body writes nothing, so that nothing needs to be stored.
        """
        yield

    @abstractmethod
    def remember_dense(self) -> None:
        """Saves the current weights of all targets for `dense_weights` and `restore_dense`."""

    @abstractmethod
    def dense_weights(self, layer: DecoderLayer) -> Mapping[str, Tensor]:
        """Returns target name -> saved weight `[out, in]`, on the device; call it while `layer` is loaded."""

    @abstractmethod
    def restore_dense(self) -> None:
        """Restores the saved weights of all targets, and drops the saved ones."""


class Resident(Residence):
    """The whole model is on the device."""

    def __init__(self, model: PreTrainedModel, decoder: Decoder, placement: Placement) -> None:
        self.placement = placement
        self.device = next(decoder.layers[0].module.parameters()).device
        self._decoder = decoder
        self._dense: dict[str, Tensor] = {}

    @contextmanager
    def before_layers(self, *, first_layer: bool) -> Iterator[None]:
        """Does nothing: the whole model is on the device already."""
        yield

    @contextmanager
    def around_layers(self) -> Iterator[None]:
        """Does nothing: the whole model is on the device already."""
        yield

    @contextmanager
    def loaded(self, layer: DecoderLayer, *, read_only: bool = False) -> Iterator[None]:
        """Does nothing: the layer is on the device already, and is changed in place."""
        yield

    def remember_dense(self) -> None:
        """Copies the target weights on the device."""
        self._dense = {target.name: target.weight.clone() for _, _, target in self._decoder.targets()}

    def dense_weights(self, layer: DecoderLayer) -> Mapping[str, Tensor]:
        """Returns the copies of the layer's target weights."""
        return {name: self._dense[name] for name in layer.targets}

    def restore_dense(self) -> None:
        """Writes the copies back; frees each one right after it was written."""
        for _, _, target in self._decoder.targets():
            target.weight.copy_(self._dense.pop(target.name))


class Onloaded(Residence):
    """Loads one layer at a time from the storage onto the device, and fetches the next one meanwhile.

    While a layer is loaded, its modules hold copies of its parameters on the device; afterwards they hold
    the same parameter objects as before.
    """

    def __init__(self, model: PreTrainedModel, decoder: Decoder, placement: Placement) -> None:
        """Fetches nothing yet.

        Raises:
            InputError: layers are to be kept in host memory, but are on another device.
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
        """Stops the prefetch thread, and drops the saved weights."""
        self._prefetch.close()
        if self._remembers:
            self._storage.forget_dense()

    @contextmanager
    def before_layers(self, *, first_layer: bool) -> Iterator[None]:
        """Loads everything except decoder layers and output head; the first layer too if it is needed."""
        head = self._model.get_output_embeddings()
        if not first_layer:
            with _holding(self._outside(but=head)):
                yield
            return
        first = self._decoder.layers[0]
        taken = self._prefetch.take(first, dense=self._remembers)
        with _holding(self._outside(but=head)), _holding(_layer_tensors(first, taken, self.device)):
            yield
        # It was not changed, and is the layer that will be loaded first.
        self._prefetch.give_back(taken)

    @contextmanager
    def around_layers(self) -> Iterator[None]:
        """Loads everything except decoder layers."""
        with _holding(self._outside()):
            yield

    @contextmanager
    def loaded(self, layer: DecoderLayer, *, read_only: bool = False) -> Iterator[None]:
        """Loads the layer, and stores it afterwards unless `read_only` is set or the body failed."""
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
        """Lets the storage save the weights."""
        self._storage.remember_dense()
        self._remembers = True

    def dense_weights(self, layer: DecoderLayer) -> Mapping[str, Tensor]:
        """Returns the saved weights, which were fetched together with the layer."""
        present = self._present
        assert present is not None and present.layer is layer and present.dense is not None
        weights = {}
        for name, target in layer.targets.items():
            stored = present.dense[target.parameter_name.removeprefix(f"{layer.name}.")]
            weights[name] = target.turned(stored if target.expert is None else stored[target.expert])
        return weights

    def restore_dense(self) -> None:
        """Lets the storage restore the weights."""
        self._storage.restore_dense()
        self._remembers = False

    def _outside(self, but: nn.Module | None = None) -> dict[tuple[nn.Module, str], Tensor]:
        """Returns (module, attribute) -> tensor on the device, for all but the decoder layers and `but`."""
        apart = {id(m) for layer in self._decoder.layers for m in layer.module.modules()} | {id(but)}
        owners = [module for module in self._model.modules() if id(module) not in apart]
        held = [
            (owner, name, value)
            for owner in owners
            for name, value in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
        ]
        # Copy tied tensors only once.
        brought = {id(value): value for _, _, value in held}
        brought = {key: value.detach().to(self.device) for key, value in brought.items()}
        return {(owner, name): brought[id(value)] for owner, name, value in held}


def _layer_tensors(
    layer: DecoderLayer, taken: OnDevice, device: torch.device
) -> dict[tuple[nn.Module, str], Tensor]:
    """Returns (module, attribute) -> the tensor that the layer holds there while it is loaded."""
    # The storage has no non-persistent buffers: take their values from the module.
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
    """Replaces parameters and buffers of modules while the body runs, and puts the original ones back."""
    originals: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []
    try:
        for (module, name), tensor in places.items():
            if (parameter := module._parameters.get(name)) is not None:
                originals.append((module._parameters, name, parameter))  # type: ignore[arg-type]
                replacement = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
                module._parameters[name] = replacement
            else:
                originals.append((module._buffers, name, module._buffers[name]))
                module._buffers[name] = tensor
        yield
    finally:
        for members, name, value in originals:
            members[name] = value


@contextmanager
def residing(model: PreTrainedModel, decoder: Decoder, placement: Placement) -> Iterator[Residence]:
    """Provides the residence that `placement` asks for while the body runs.

    Raises:
        InputError: layers are to be kept in host memory, but are on another device.
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
