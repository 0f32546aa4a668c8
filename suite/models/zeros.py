"""Counts the zeros of a model's target modules, and finds the sparsity pattern they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from methods.base import Placement
from methods.placement.layer_loading import residing
from methods.structure.decoder import read_decoder
from suite.results.records.record import ModuleReport
from suite.results.statistics.model_metrics import share_pruned

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

COMMON_PATTERNS = ((1, 4), (2, 4), (4, 8))
"""N:M patterns to look for, the sparsest first."""
NEARLY = 0.01
"""Largest deviation of a checkpoint's sparsity from that of its N:M pattern, as a share of all weights."""
PRUNED_FROM = 0.01
"""Checkpoints with a smaller share of zeros count as dense: weights can be 0 without any pruning."""


@dataclass(frozen=True)
class Zeros:
    """The zeros of a model's target modules.

    Attributes:
        modules: the target modules in the order of the model; weights that are exactly 0 count as pruned.
        dtype: dtype of the loaded model.
        fitting: the common N:M patterns that every module conforms to; None if they were not looked for.
    """

    modules: tuple[ModuleReport, ...]
    dtype: torch.dtype
    fitting: tuple[tuple[int, int], ...] | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Target module -> number of its zeros."""
        return {module.module: module.n_pruned for module in self.modules}

    @property
    def sparsity(self) -> float:
        """Share of zeros in all target modules."""
        return share_pruned(self.modules)

    @property
    def pattern(self) -> str | None:
        """The pattern of the zeros: N:M, else the sparsity; None if there are too few to call it pruned."""
        assert self.fitting is not None, "count_zeros was not asked for it"
        sparsity = self.sparsity
        if sparsity < PRUNED_FROM:
            return None
        # At 90 % nearly every group has enough zeros for 4:8, which nobody pruned to.
        for n, m in self.fitting:
            if abs(1 - n / m - sparsity) < NEARLY:
                return f"{n}:{m}"
        return f"{min(sparsity, 0.9999):.4g}"  # 1 is not a valid target sparsity


def count_zeros(
    model: PreTrainedModel, placement: Placement = Placement(), *, find_pattern: bool = False
) -> Zeros:
    """Counts the zeros of a model's target modules.

    Args:
        model: the model.
        placement: where its decoder layers are stored.
        find_pattern: whether to look for N:M patterns as well.

    Raises:
        StructureError: the model's structure cannot be read.
    """
    modules: list[ModuleReport] = []
    fitting: tuple[tuple[int, int], ...] = COMMON_PATTERNS if find_pattern else ()
    decoder = read_decoder(model)
    with torch.no_grad(), residing(model, decoder, placement) as residence:
        for layer in decoder.layers:
            with residence.loaded(layer, read_only=True):
                for block in layer.blocks:
                    for target in block.targets.values():
                        weight = target.weight
                        modules.append(
                            ModuleReport(
                                module=target.name,
                                layer=layer.index,
                                block=str(block.kind),
                                shape=target.shape,
                                n_weights=weight.numel(),
                                n_pruned=weight.numel() - int(weight.count_nonzero()),
                            )
                        )
                        fitting = tuple(pattern for pattern in fitting if keeps(weight, *pattern))
    return Zeros(tuple(modules), model.dtype, fitting if find_pattern else None)


def keeps(weight: Tensor, n: int, m: int) -> bool:
    """Whether at most n of every m consecutive input weights are nonzero."""
    if weight.shape[1] % m:
        return False
    groups = weight.reshape(weight.shape[0], -1, m)
    return bool((groups.count_nonzero(-1) <= n).all())


__all__ = ["NEARLY", "Zeros", "count_zeros", "keeps"]
