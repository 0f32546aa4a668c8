"""Storages that keep decoder layers while they are not on the device: host memory, or checkpoint files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from methods.errors import InputError, PruningError
from methods.masks.bits import same_bits
from methods.placement.tensor_files import TensorFiles
from methods.structure.decoder import Decoder, DecoderLayer, target_parameters


class HostStorage:
    """Keeps the layers in the model's own parameters, in host memory."""

    def __init__(self, decoder: Decoder) -> None:
        """Collects the parameters, because the modules do not hold them while a layer is on the device.

        Raises:
            InputError: the parameters are not in host memory.
        """
        self._decoder = decoder
        self._parameters: dict[int, dict[str, Tensor]] = {}
        self._targets: dict[int, dict[str, Tensor]] = {}
        self._dense: list[tuple[object, dict[int, dict[str, Tensor]]]] = []
        for layer in decoder.layers:
            own = {name: p.detach() for name, p in layer.module.named_parameters()}
            if away := next((p.device for p in own.values() if p.device.type != "cpu"), None):
                raise InputError(
                    f"placement 'onload': {layer.name} is on {away}; onloaded layers are kept in host "
                    "memory: load the model on the CPU"
                )
            persistent = layer.module.state_dict().keys()
            buffers = {name: b for name, b in layer.module.named_buffers() if name in persistent}
            self._parameters[layer.index] = own | buffers
            self._targets[layer.index] = {name: own[name] for name in target_parameters(layer)}

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Returns copies of the layer's parameters."""
        return {name: _copy(value, pinned) for name, value in self._parameters[layer.index].items()}

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Writes the weights into the model's parameters."""
        for name, weight in weights.items():
            self._targets[layer.index][name].copy_(weight)

    def remember_dense(self) -> None:
        """Copies the target weights; reuses the last copy if no layer was stored since."""
        stamps = [self.stamp(layer) for layer in self._decoder.layers]
        if self._dense and self._dense[-1][0] == stamps:
            self._dense.append(self._dense[-1])
            return
        copies = {
            index: {name: value.clone() for name, value in targets.items()}
            for index, targets in self._targets.items()
        }
        self._dense.append((stamps, copies))

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Returns the saved copies themselves, or new copies if pinned memory is requested."""
        dense = self._dense[-1][1][layer.index]
        return {name: _copy(value, pinned) for name, value in dense.items()} if pinned else dict(dense)

    def restore_dense(self) -> None:
        """Writes the saved copies back, and drops them."""
        for layer in self._decoder.layers:
            self.store(layer, self._dense[-1][1][layer.index])
        self.forget_dense()

    def forget_dense(self) -> None:
        """Drops the copies that were saved last."""
        self._dense.pop()

    def stamp(self, layer: DecoderLayer) -> object:
        """Returns PyTorch's version counters of the layer's targets, which increase with every write."""
        return [value._version for value in self._targets[layer.index].values()]


class CheckpointStorage:
    """Reads one layer at a time from a checkpoint's safetensors files, and writes one file per pruned layer.

    Every tensor is cast to the dtype of its parameter in the model, whose decoder layers may have no values
    (on the meta device).

    Attributes:
        staging: the folder for pruned layers; None = layers are only read.
    """

    def __init__(
        self, source: TensorFiles, staging: Path | None, names: Mapping[str, str] | None = None
    ) -> None:
        """Reads nothing yet.

        Args:
            source: the dense checkpoint; it is never written to.
            staging: an existing folder, preferably on the file system of the output folder; None = layers
                are only read.
            names: a tensor's dotted name in the model -> its name in `source`, if the two differ.
        """
        self.staging = staging
        self._source = source
        self._names = names or {}
        self._staged: dict[int, TensorFiles] = {}
        self._n_changes: Counter[int] = Counter()

    def file_of(self, layer: DecoderLayer) -> Path:
        """Returns the file for the whole pruned layer, whose tensors have the names of the source.

        It exists once the layer was stored.

        Raises:
            PruningError: there is no staging folder.
        """
        if self.staging is None:
            raise PruningError(f"{layer.name} cannot be stored: its model was opened for reading only")
        return self.staging / f"layer-{layer.index:05d}.safetensors"

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Reads the pruned layer's file if there is one, else the source."""
        return self._read(self._staged.get(layer.index, self._source), layer, _state(layer), pinned)

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Writes the whole layer into one file; parameters without targets are copied from the source."""
        dtypes = _state(layer)
        others = {name: dtype for name, dtype in dtypes.items() if name not in weights}
        whole = self._read(self._source, layer, others, pinned=False)
        whole |= {name: weights[name].to("cpu", dtypes[name]).contiguous() for name in weights}
        file = self.file_of(layer)
        unfinished = file.with_suffix(".unfinished")
        named = {self._name(layer, name): value for name, value in whole.items()}
        save_file(named, unfinished, metadata={"format": "pt"})
        _check_written(TensorFiles([unfinished]), named)
        unfinished.replace(file)
        self._n_changes[layer.index] += 1
        self._staged[layer.index] = TensorFiles([file])

    def remember_dense(self) -> None:
        """Copies nothing, because the source holds the dense weights.

        Raises:
            PruningError: layers were stored before, so that the source differs from the current weights.
        """
        if self._staged:
            raise PruningError("the dense weights can only be saved before any layer was stored")

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Reads the dense weights from the source."""
        dtypes = _state(layer)
        wanted = {name: dtypes[name] for name in target_parameters(layer)}
        return self._read(self._source, layer, wanted, pinned)

    def restore_dense(self) -> None:
        """Deletes the files of pruned layers."""
        self._n_changes.update(self._staged.keys())
        for staged in self._staged.values():
            for file in {stored.file for stored in staged.stored.values()}:
                file.unlink()
        self._staged.clear()

    def forget_dense(self) -> None:
        """Does nothing: the source is kept."""

    def stamp(self, layer: DecoderLayer) -> object:
        """Returns how often the layer was stored or restored."""
        return self._n_changes[layer.index]

    def _name(self, layer: DecoderLayer, name: str) -> str:
        full = f"{layer.name}.{name}"
        return self._names.get(full, full)

    def _read(
        self, files: TensorFiles, layer: DecoderLayer, wanted: Mapping[str, torch.dtype], pinned: bool
    ) -> dict[str, Tensor]:
        names = {name: self._name(layer, name) for name in wanted}
        if absent := next((full for full in names.values() if full not in files.stored), None):
            raise InputError(
                f"the checkpoint has no tensor {absent}; --placement resident may give a more detailed error"
            )
        read = files.read_all({names[name]: dtype for name, dtype in wanted.items()}, pinned=pinned)
        return {name: read[full] for name, full in names.items()}


def _check_written(files: TensorFiles, tensors: Mapping[str, Tensor]) -> None:
    """Reads back the written file tensor by tensor; raises `PruningError` if any bit differs."""
    for name, tensor in tensors.items():
        if not same_bits(files.read(name), tensor):
            raise PruningError(f"{files.stored[name].file}: {name} differs from what was written")


def _state(layer: DecoderLayer) -> dict[str, torch.dtype]:
    """Returns name -> dtype of the layer's parameters and persistent buffers."""
    return {name: value.dtype for name, value in layer.module.state_dict().items()}


def _copy(value: Tensor, pinned: bool) -> Tensor:
    return torch.empty_like(value, pin_memory=pinned).copy_(value)


__all__ = [
    "CheckpointStorage",
    "HostStorage",
]
