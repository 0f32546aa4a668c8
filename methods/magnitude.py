"""Magnitude pruning: the smallest weights of each Linear go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from methods.base import (
    CalibrationSet,
    LayerReport,
    PhaseClock,
    Placement,
    PruneResult,
    ignore_layer,
)
from methods.engine.hidden_states import at_rest
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import SemiStructured, SparsityPattern, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite
from methods.placement.layer_loading import residing
from methods.structure.decoder import read_decoder
from methods.structure.target import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Magnitude:
    """Score |W|, compared over the whole Linear (or inside each group of M)."""

    name: ClassVar[str] = "magnitude"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear."""
        return shape

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None = None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`; calibration is not looked at."""
        decoder = read_decoder(model)
        decoder.check_pattern(pattern)
        keep: dict[str, KeepMask] = {}
        reports: list[LayerReport] = []
        with at_rest(model), residing(model, decoder, placement) as residence:
            clock = PhaseClock(device=residence.device)
            for layer in decoder.layers:
                with clock.phase("solve"), residence.visiting(layer):
                    masks = {name: _prune_target(target, pattern) for name, target in layer.targets.items()}
                for block in layer.blocks:
                    for name, target in block.targets.items():
                        keep[target.mask_name] = masks[name]
                        n_pruned = masks[name].numel - masks[name].n_kept
                        report = LayerReport(name, layer.index, block.kind, target.shape, n_pruned)
                        reports.append(report)
                        on_layer(report)
        return PruneResult(keep, tuple(reports), clock.seconds)


def _prune_target(target: Target, pattern: SparsityPattern) -> KeepMask:
    require_finite(target.weight, target.name, "its weights")
    mask = magnitude_keep(target.weight, pattern.for_module(target.name))
    target.write(target.weight, mask)
    return target.pack(mask)


def magnitude_keep(weight: Tensor, pattern: UniformPattern) -> Tensor:
    """Keep-mask by |W|.

    Args:
        weight: `[out, in]`.
        pattern: what to remove; unstructured counts over all of `weight`.

    Returns:
        bool `[out, in]`.
    """
    scores = weight.float().abs()
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(scores, pattern)
    return prune_lowest(scores.reshape(1, -1), pattern.n_pruned(scores.numel())).reshape(weight.shape)


__all__ = ["Magnitude", "magnitude_keep"]
