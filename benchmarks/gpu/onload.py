"""Times methods on a model larger than the device: its layers stay on the host and are moved to it one by
one.

All layers share the storage of one, so the host needs memory for one layer instead of sixty. Transfers and
computations are the same as with sixty; only the values repeat.
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
"""Number of layers, resident on the device, on which the decoder's own forward is measured."""


class SharedStorage:
    """A `LayerStorage` for layers of one shape that stores a single one.

    Every layer gets the same dense weights and, once it was stored, the weights that were stored last, by any
    layer. Transfers and computations take their real time, but masks and weights are meaningless for models
    with more than one layer.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Stores one layer.

        Args:
            weights: its parameters and persistent buffers by dotted name within the layer, on the CPU.
        """
        self._dense = dict(weights)
        self._pruned: dict[str, Tensor] = {}
        self._stored: set[int] = set()
        self._n_changes: Counter[int] = Counter()

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Returns copies of the weights of a layer."""
        pruned = self._pruned if layer.index in self._stored else {}
        now = {name: pruned.get(name, dense) for name, dense in self._dense.items()}
        return _pinned(now) if pinned else {name: value.clone() for name, value in now.items()}

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Overwrites the stored tensors of the same names, whichever layer they came from.

        All layers stored before get these weights from now on; a layer that another thread fetches meanwhile
        may get a mix of both.
        """
        for name, weight in weights.items():
            self._pruned.setdefault(name, torch.empty_like(self._dense[name])).copy_(weight)
        self._stored.add(layer.index)
        self._n_changes[layer.index] += 1

    def remember_dense(self) -> None:
        """Does nothing: the dense weights never change."""

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Returns the weights that all layers had at the start."""
        targets = {name: self._dense[name] for name in target_parameters(layer)}
        return _pinned(targets) if pinned else targets

    def restore_dense(self) -> None:
        """Marks all layers as not stored."""
        self._n_changes.update(self._stored)
        self._stored.clear()

    def forget_dense(self) -> None:
        """Does nothing: there is no copy to drop."""

    def stamp(self, layer: DecoderLayer) -> object:
        """Returns the number of changes of a layer."""
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
    """Makes one row per method and pattern; see `benchmarks.gpu.resident.run`."""
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
    """Returns a model whose layers have no values, and the storage that has them.

    Everything except the decoder layers is on the host. Random numbers are generated on `device`, which is
    faster.
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
    """Measures on a few layers that are on the device only meanwhile, not while a method is timed."""
    reference = shape.with_layers(REFERENCE_LAYERS)

    def rates(batch_sizes: Sequence[int] = ()) -> MachineRates:
        return measure(reference.build(device), shape.n_samples, shape.seqlen, batch_sizes=batch_sizes)

    return partial(rates, (rates().batch_size,))


def _pinned(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors to pinned memory, from which a GPU can copy asynchronously."""
    return {name: value.pin_memory() for name, value in values.items()}


__all__ = ["SharedStorage", "run", "sharing_model"]
