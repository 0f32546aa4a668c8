"""Wanda: weights times the norms of what they read (arXiv 2306.11695)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from methods.base import CalibrationSet, LayerReport, Placement, PruneResult, ignore_layer, with_calibration
from methods.engine.layerwise import Solution, prune_layer_by_layer
from methods.engine.statistics import InputNorms
from methods.masks.pattern import SemiStructured, SparsityPattern, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Wanda:
    """Score |W_ij| * ||X_j||_2, compared within each output row (or inside each group of M)."""

    name: ClassVar[str] = "wanda"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = True
    reconstructs: ClassVar[bool] = False

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """An output row."""
        return (1, shape[1])

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`."""
        return prune_layer_by_layer(
            model,
            pattern,
            with_calibration(self.name, calibration),
            statistic=InputNorms.of,
            solve=_solve,
            placement=placement,
            on_layer=on_layer,
        )


def wanda_scores(weight: Tensor, squared_norms: Tensor) -> Tensor:
    """|W_ij| * sqrt(sum_t X_tj^2) (arXiv 2306.11695, equation 1).

    Args:
        weight: fp32 `[out, in]`.
        squared_norms: `[in]`, sum over all calibration tokens.

    Returns:
        fp32 `[out, in]`.
    """
    return weight.abs() * squared_norms.sqrt()


def wanda_keep(scores: Tensor, pattern: UniformPattern) -> Tensor:
    """Keep-mask bool `[out, in]` by `wanda_scores`; unstructured counts in each row."""
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(scores, pattern)
    return prune_lowest(scores, pattern.n_pruned(scores.shape[1]))


def _solve(name: str, weight: Tensor, norms: InputNorms, pattern: UniformPattern) -> Solution:
    scores = wanda_scores(weight, norms.value)
    require_finite(scores, name, "its Wanda scores")
    dead = int((norms.value == 0).sum())
    warnings = (f"{dead} inputs were never active; their weights rank lowest",) if dead else ()
    return Solution(wanda_keep(scores, pattern), warnings=warnings)


__all__ = ["Wanda", "wanda_keep", "wanda_scores"]
