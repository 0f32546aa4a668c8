"""Where decoder layers stay between their visits to the device: the host's memory, or checkpoint files."""

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
    """The model's own parameters."""

    def __init__(self, decoder: Decoder) -> None:
        """Notes the parameters, which leave the modules while a layer visits the device.

        Raises:
            InputError: they are not in the host's memory.
        """
        self._decoder = decoder
        self._parameters: dict[int, dict[str, Tensor]] = {}
        self._targets: dict[int, dict[str, Tensor]] = {}
        self._dense: list[tuple[object, dict[int, dict[str, Tensor]]]] = []
        for layer in decoder.layers:
            own = {name: p.detach() for name, p in layer.module.named_parameters()}
            if away := next((p.device for p in own.values() if p.device.type != "cpu"), None):
                raise InputError(
                    f"placement 'onload': {layer.name} is on {away}; onloaded layers wait in the host's "
                    "memory: load the model on the CPU"
                )
            persistent = layer.module.state_dict().keys()
            buffers = {name: b for name, b in layer.module.named_buffers() if name in persistent}
            self._parameters[layer.index] = own | buffers
            self._targets[layer.index] = {name: own[name] for name in target_parameters(layer)}

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Copies of them."""
        return {name: _copy(value, pinned) for name, value in self._parameters[layer.index].items()}

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Writes them."""
        for name, weight in weights.items():
            self._targets[layer.index][name].copy_(weight)

    def remember_dense(self) -> None:
        """Copies them, unless they are still those that were copied last."""
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
        """The copies themselves; pinned ones are new."""
        dense = self._dense[-1][1][layer.index]
        return {name: _copy(value, pinned) for name, value in dense.items()} if pinned else dict(dense)

    def restore_dense(self) -> None:
        """Writes the copies back, and drops them."""
        for layer in self._decoder.layers:
            self.store(layer, self._dense[-1][1][layer.index])
        self.forget_dense()

    def forget_dense(self) -> None:
        """Drops them."""
        self._dense.pop()

    def stamp(self, layer: DecoderLayer) -> object:
        """PyTorch counts how often a tensor is written to."""
        return [value._version for value in self._targets[layer.index].values()]


class CheckpointStorage:
    """A checkpoint's safetensors files, read one layer at a time, and a file a pruned layer beside them.

    Every tensor is cast to the dtype its parameter has in the model, whose decoder layers may be without
    values (on the meta device).

    Attributes:
        staging: where pruned layers are written; None = nowhere.
    """

    def __init__(
        self, source: TensorFiles, staging: Path | None, names: Mapping[str, str] | None = None
    ) -> None:
        """Reads nothing yet.

        Args:
            source: the dense checkpoint; it is never written to.
            staging: an existing folder, at best of the file system where the pruned model shall be; None =
                layers are only read.
            names: a tensor's dotted name in the model -> its name in `source`, where the two differ.
        """
        self.staging = staging
        self._source = source
        self._names = names or {}
        self._staged: dict[int, TensorFiles] = {}
        self._n_changes: Counter[int] = Counter()

    def file_of(self, layer: DecoderLayer) -> Path:
        """The file that holds the whole layer once it was stored, under the names of the source.

        Raises:
            PruningError: layers are only read.
        """
        if self.staging is None:
            raise PruningError(f"{layer.name} was to be pruned, and its model is only read")
        return self.staging / f"layer-{layer.index:05d}.safetensors"

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Reads the staged file where there is one, else the source."""
        return self._read(self._staged.get(layer.index, self._source), layer, _state(layer), pinned)

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Writes the whole layer into a file of its own; what holds no target comes from the source."""
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
        """The source is what is remembered.

        Raises:
            PruningError: layers were stored before, so it is not what they are now.
        """
        if self._staged:
            raise PruningError("the dense weights can only be remembered before any layer was stored")

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Reads the source."""
        dtypes = _state(layer)
        wanted = {name: dtypes[name] for name in target_parameters(layer)}
        return self._read(self._source, layer, wanted, pinned)

    def restore_dense(self) -> None:
        """Drops the staged files."""
        self._n_changes.update(self._staged.keys())
        for staged in self._staged.values():
            for file in {stored.file for stored in staged.stored.values()}:
                file.unlink()
        self._staged.clear()

    def forget_dense(self) -> None:
        """The source stays."""

    def stamp(self, layer: DecoderLayer) -> object:
        """Counts its changes."""
        return self._n_changes[layer.index]

    def _name(self, layer: DecoderLayer, name: str) -> str:
        full = f"{layer.name}.{name}"
        return self._names.get(full, full)

    def _read(
        self, files: TensorFiles, layer: DecoderLayer, wanted: Mapping[str, torch.dtype], pinned: bool
    ) -> dict[str, Tensor]:
        names = {name: self._name(layer, name) for name in wanted}
        if absent := next((full for full in names.values() if full not in files.stored), None):
            raise InputError(f"the checkpoint holds no tensor {absent}; --placement resident may know why")
        read = files.read_all({names[name]: dtype for name, dtype in wanted.items()}, pinned=pinned)
        return {name: read[full] for name, full in names.items()}


def _check_written(files: TensorFiles, tensors: Mapping[str, Tensor]) -> None:
    """Reads back what was written, a tensor at a time; raises `PruningError` where a bit differs."""
    for name, tensor in tensors.items():
        if not same_bits(files.read(name), tensor):
            raise PruningError(f"{files.stored[name].file}: {name} was written and reads back otherwise")


def _state(layer: DecoderLayer) -> dict[str, torch.dtype]:
    """The layer's parameters and persistent buffers with their dtypes."""
    return {name: value.dtype for name, value in layer.module.state_dict().items()}


def _copy(value: Tensor, pinned: bool) -> Tensor:
    return torch.empty_like(value, pin_memory=pinned).copy_(value)


__all__ = [
    "CheckpointStorage",
    "HostStorage",
]
