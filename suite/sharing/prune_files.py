"""Stores the result of a prune in files: masks as packed bits, reports, and reconstructed weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from methods.base import LayerReport, PruneResult
from methods.masks.keep_mask import KeepMask

if TYPE_CHECKING:
    from torch import Tensor

    from methods.structure.decoder import DecoderLayer

MASKS, REPORT, INITIAL = "masks.safetensors", "prune.json", "initial"


def write_prune(folder: Path, result: PruneResult) -> None:
    """Writes a result, including that of the initial method it started from, into an empty folder."""
    bits = {name: np.frombuffer(mask.bits, dtype=np.uint8) for name, mask in result.keep.items()}
    save_arrays(bits, folder / MASKS)
    report = {
        "shapes": {name: mask.shape for name, mask in result.keep.items()},
        "layers": [asdict(layer) for layer in result.layers],
        "phases": dict(result.phases),
    }
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    if result.initial is not None:
        (folder / INITIAL).mkdir()
        write_prune(folder / INITIAL, result.initial)


def read_prune(folder: Path) -> PruneResult:
    """Reads what `write_prune` wrote.

    Raises:
        OSError, ValueError, KeyError, safetensors.SafetensorError: a file is missing or damaged.
    """
    bits = load_arrays(folder / MASKS)
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    keep = {name: KeepMask(bits[name].tobytes(), tuple(shape)) for name, shape in report["shapes"].items()}
    layers = tuple(LayerReport(**_with_tuples(row)) for row in report["layers"])
    inner = folder / INITIAL
    return PruneResult(keep, layers, report["phases"], read_prune(inner) if inner.is_dir() else None)


def write_weights(folder: Path, weights: Iterable[tuple[DecoderLayer, Mapping[str, Tensor]]]) -> None:
    """Writes the target weights of each layer (`methods.placement.pruned_weights`), one file per layer."""
    for layer, tensors in weights:
        save_file(dict(tensors), _weights_file(folder, layer))


def weights_in(folder: Path) -> Callable[[DecoderLayer], dict[str, Tensor]]:
    """Returns a function that reads the target weights of a given layer."""
    return lambda layer: load_file(_weights_file(folder, layer))


def has_weights(folder: Path) -> bool:
    """Whether weights were written beside the masks."""
    return next(folder.glob("weights-*"), None) is not None


def _weights_file(folder: Path, layer: DecoderLayer) -> Path:
    return folder / f"weights-{layer.index:05d}.safetensors"


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "shape": tuple(row["shape"]), "warnings": tuple(row["warnings"])}


__all__ = ["has_weights", "read_prune", "weights_in", "write_prune", "write_weights"]
