"""Writes the weight files of a checkpoint whose decoder layers were written one by one."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from methods.placement.tensor_files import INDEX_FILE, TensorFiles
from methods.structure.decoder import read_decoder, target_parameters
from suite.models.layered import LayeredModel, outside_layers


def write_shards(loaded: LayeredModel, folder: Path) -> None:
    """Writes the weight files and their index: one for all outside the decoder layers, then one per layer.

    Tensors keep the names that they have in the original model's files. A layer's file is the one that its
    prune left in `folder`, renamed.
    """
    decoder, storage = read_decoder(loaded.model), loaded.storage
    n_shards = len(decoder.layers) + 1
    shards = [
        folder / f"model-{number:05d}-of-{n_shards:05d}.safetensors" for number in range(1, n_shards + 1)
    ]
    outside = outside_layers(loaded.model, decoder)
    save_file(
        {loaded.names[name]: value.contiguous() for name, value in outside.items()},
        shards[0],
        metadata={"format": "pt"},
    )
    for layer, shard in zip(decoder.layers, shards[1:], strict=True):
        if not storage.file_of(layer).exists():  # the method did not change the layer
            weights = storage.fetch(layer)
            storage.store(layer, {name: weights[name] for name in target_parameters(layer)})
        storage.file_of(layer).replace(shard)
    written = TensorFiles(shards).stored
    index = {
        "metadata": {
            "total_parameters": loaded.identity.n_parameters,
            "total_size": sum(stored.n_bytes for stored in written.values()),
        },
        "weight_map": {name: written[name].file.name for name in sorted(written)},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


__all__ = ["write_shards"]
