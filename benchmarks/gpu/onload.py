"""Times methods on a model larger than the device: its layers stay on the host and visit one by one.

The layers share one host storage, so that the host needs to hold one layer and not sixty. What travels and
what is computed is what it would be with sixty; only the numbers repeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.gpu.ledger import Ledger
from benchmarks.gpu.resident import make_rows
from benchmarks.gpu.shapes import Shape
from benchmarks.machine import MachineRates, measure
from benchmarks.sizes import workload
from benchmarks.timing import Bench
from methods.base import Placement
from methods.structure.decoder import DecoderLayer, read_decoder, target_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REFERENCE_LAYERS = 2
"""Layers of the model on which the decoder's own forward is measured, lying on the device."""


class SharedStorage:
    """A `LayerStorage` for layers of one shape, of which it holds a single one.

    Every layer is given the same dense weights, and once it was stored the weights that were stored last,
    whichever layer's they were. So what travels and what is computed take their time, but no mask and no
    weight of a model with more than one layer means anything.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over one layer.

        Args:
            weights: its parameters and persistent buffers by dotted name inside the layer, on the CPU.
        """
        self._dense = dict(weights)
        self._pruned: dict[str, Tensor] = {}
        self._stored: set[int] = set()
        self._n_changes: Counter[int] = Counter()

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Copies."""
        pruned = self._pruned if layer.index in self._stored else {}
        now = {name: pruned.get(name, dense) for name, dense in self._dense.items()}
        return _pinned(now) if pinned else {name: value.clone() for name, value in now.items()}

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Writes these tensors over those of the same names that were stored last, of whichever layer.

        Every layer stored before is given them from now on; one that is fetched by another thread meanwhile
        may be given some of both.
        """
        for name, weight in weights.items():
            self._pruned.setdefault(name, torch.empty_like(self._dense[name])).copy_(weight)
        self._stored.add(layer.index)
        self._n_changes[layer.index] += 1

    def remember_dense(self) -> None:
        """They are never changed."""

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """The weights all layers began with."""
        own = {name: self._dense[name] for name in target_parameters(layer)}
        return _pinned(own) if pinned else own

    def restore_dense(self) -> None:
        """No layer counts as stored any more."""
        self._n_changes.update(self._stored)
        self._stored.clear()

    def forget_dense(self) -> None:
        """There is no copy to drop."""

    def stamp(self, layer: DecoderLayer) -> object:
        """Counts its changes."""
        return self._n_changes[layer.index]


def run(
    stage: str,
    shape: Shape,
    runs: Sequence[tuple[str, str]],
    device: torch.device,
    ledger: Ledger,
    *,
    repeats: int = 1,
) -> None:
    """Makes a row for each method and pattern; see `benchmarks.gpu.resident.run`."""
    model, storage = sharing_model(shape, device)
    one_layer = shape.with_layers(1)
    load = workload(one_layer.build(device), shape.n_samples, shape.seqlen)
    placement = Placement(weights="onload", device=device, storage=storage)
    bench = Bench(
        stage=stage,
        name=shape.name,
        model=model,
        restore=storage.restore_dense,
        calibration=shape.calibration(),
        placement=placement,
        load=replace(load, layers=load.layers * shape.n_layers),
        rates=_measuring(shape, device),
        device=device,
    )
    make_rows(bench, runs, ledger, repeats=repeats)


def sharing_model(shape: Shape, device: torch.device) -> tuple[PreTrainedModel, SharedStorage]:
    """A model whose layers hold no values, and the storage that has them.

    What is no decoder layer lies on the host. Random numbers are made on `device`, which is quicker.
    """
    model = shape.with_layers(1).build(device).to("cpu")
    layer = read_decoder(model).layers[0]
    storage = SharedStorage(layer.module.state_dict())
    with_all = shape.build("meta")
    holder, _, name = layer.name.rpartition(".")[0].rpartition(".")
    setattr(model.get_submodule(holder), name, with_all.get_submodule(f"{holder}.{name}"))
    model.config.num_hidden_layers = shape.n_layers
    return model, storage


def _measuring(shape: Shape, device: torch.device) -> Callable[[], MachineRates]:
    """Measures on a few layers that lie on the device meanwhile and are gone when a method is timed."""
    reference = shape.with_layers(REFERENCE_LAYERS)

    def rates(batch_sizes: Sequence[int] = ()) -> MachineRates:
        return measure(reference.build(device), shape.n_samples, shape.seqlen, batch_sizes=batch_sizes)

    return partial(rates, (rates().batch_size,))


def _pinned(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory that a GPU can read while others work."""
    return {name: value.pin_memory() for name, value in values.items()}


__all__ = ["SharedStorage", "run", "sharing_model"]
