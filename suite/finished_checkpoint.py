"""What can be told of a finished checkpoint: what its `pruning.json` says, and what its zeros say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.decoder import read_decoder
from methods.errors import InputError
from suite.checkpoint_folder import SUMMARY

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

COMMON_PATTERNS = ((1, 4), (2, 4), (4, 8))
"""N:M patterns that are looked for, the sparsest first."""
PRUNED_FROM = 0.01
"""Checkpoints with a smaller share of zeros are taken for dense: weights can be 0 without any pruning."""


@dataclass(frozen=True)
class CountedModule:
    """The zeros of one target module.

    Attributes:
        name: of the target.
        layer: index of its decoder layer.
        block: `attention` or `mlp`.
        shape: of its weight, `[out, in]`.
        n_zeros: weights that are exactly 0.
        itemsize: bytes of one weight.
    """

    name: str
    layer: int
    block: str
    shape: tuple[int, int]
    n_zeros: int
    itemsize: int

    @property
    def n_weights(self) -> int:
        """All its weights."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class CountedZeros:
    """The zeros of a checkpoint's target modules.

    Attributes:
        modules: in the order of the model.
        pattern: the pattern they amount to: an N:M that every module keeps, else the sparsity; None where
            there are too few to call it pruned.
    """

    modules: tuple[CountedModule, ...]
    pattern: str | None

    @property
    def sparsity(self) -> float:
        """Share of zeros in all target modules."""
        return sum(m.n_zeros for m in self.modules) / sum(m.n_weights for m in self.modules)


def count_zeros(model: PreTrainedModel) -> CountedZeros:
    """Counts the zeros of a model's target modules.

    Raises:
        StructureError: its structure cannot be read.
    """
    modules: list[CountedModule] = []
    fitting = list(COMMON_PATTERNS)
    for layer, block, target in read_decoder(model).targets():
        weight = target.weight
        n_zeros = weight.numel() - int(weight.count_nonzero())
        modules.append(
            CountedModule(
                target.name, layer.index, str(block.kind), target.shape, n_zeros, weight.element_size()
            )
        )
        fitting = [(n, m) for n, m in fitting if _keeps(weight, n, m)]
    counted = CountedZeros(tuple(modules), None)
    if counted.sparsity < PRUNED_FROM:
        return counted
    named = f"{fitting[0][0]}:{fitting[0][1]}" if fitting else f"{counted.sparsity:.4g}"
    return CountedZeros(counted.modules, named)


def read_summary(folder: Path) -> Mapping[str, Any] | None:
    """What `prunebench prune` wrote beside a checkpoint; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / SUMMARY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    needed = ("model", "method", "settings", "pattern", "sparsity", "modules", "prune_seconds")
    if not isinstance(found, dict) or (lacking := [key for key in needed if key not in found]):
        what = f"lacks {lacking[0]!r}" if isinstance(found, dict) else "is no JSON object"
        raise InputError(f"{path} {what}: it is not what prunebench prune writes")
    return found


def disagreement(summary: Mapping[str, Any], zeros: CountedZeros) -> str | None:
    """How a checkpoint's weights differ from what its `pruning.json` says; None where they do not."""
    said = {name: entry.get("n_zeros") for name, entry in summary["modules"].items()}
    found = {module.name: module.n_zeros for module in zeros.modules}
    off = [name for name in found if said.get(name) != found[name]]
    if not off and said.keys() == found.keys():
        return None
    name = off[0] if off else next(iter(said.keys() - found.keys()))
    return (
        f"pruning.json does not fit the weights in {len(off) or 'other'} modules: it says that {name} has "
        f"{said.get(name)} zeros, and there are {found.get(name)}"
    )


def _keeps(weight: Tensor, n: int, m: int) -> bool:
    """Whether of every m consecutive input weights at most n are not 0."""
    if weight.shape[1] % m:
        return False
    groups = weight.reshape(weight.shape[0], -1, m)
    return bool((groups.count_nonzero(-1) <= n).all())


__all__ = ["CountedModule", "CountedZeros", "count_zeros", "disagreement", "read_summary"]
