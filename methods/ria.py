"""RIA: weights relative to their row and column, times the norms of what they read (arXiv 2402.12419)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from methods.base import CalibrationSet, LayerReport, Placement, PruneResult, ignore_layer, with_calibration
from methods.engine.layerwise import Solution, prune_layer_by_layer
from methods.engine.statistics import InputNorms
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, SparsityPattern, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Group = Literal["layer", "output"]


@dataclass(frozen=True)
class RIA:
    """Relative importance and activations: a weight is as important as its share of its row and its column.

    A large weight in a column of large weights is less of a loss than the same weight where all others are
    small; by magnitude alone whole rows and columns would go. For N:M the authors also permute input channels
    before the groups of M are formed. That changes the order in which the model computes and is left out
    here: what is compared is the score.

    Attributes:
        activation_power: exponent of the input's norm, at least 0; the paper's a.
        group: what an unstructured pattern compares: the whole matrix (`layer`, the authors' default) or each
            row (`output`). An N:M pattern always compares inside each group of M.
    """

    activation_power: float = 0.5
    group: Group = "layer"

    name: ClassVar[str] = "ria"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = True
    reconstructs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.activation_power < inf:
            raise InputError(
                f"method 'ria': activation_power must be at least 0, not {self.activation_power:g}"
            )

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """As `group` says."""
        return shape if self.group == "layer" else (1, shape[1])

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
            solve=self._solve,
            placement=placement,
            on_layer=on_layer,
        )

    def _solve(self, name: str, weight: Tensor, norms: InputNorms, pattern: UniformPattern) -> Solution:
        scores = ria_scores(weight, norms.value, self.activation_power)
        require_finite(scores, name, "its RIA scores")
        dead = int((norms.value == 0).sum())
        warnings = (f"{dead} inputs were never active; their weights {self._rank_of_dead()}",) if dead else ()
        return Solution(ria_keep(scores, pattern, self.group), warnings=warnings)

    def _rank_of_dead(self) -> str:
        return "rank lowest" if self.activation_power else "rank by themselves alone"


def ria_scores(weight: Tensor, squared_norms: Tensor, power: float) -> Tensor:
    """(|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) * ||X_j||^a (arXiv 2402.12419).

    A weight of a row or column that holds nothing but zeros has no share of it: 0 / 0 counts as 0. Where the
    sum of a row or column overflows fp32, its scores are NaN.

    Args:
        weight: fp32 `[out, in]`.
        squared_norms: `[in]`, sum of X_tj^2 over all calibration tokens.
        power: a, at least 0; with 0 every norm counts as 1, that of a dead input too.

    Returns:
        fp32 `[out, in]`.
    """
    magnitude = weight.abs()
    shares = magnitude / _divisor(magnitude.sum(0)) + magnitude / _divisor(magnitude.sum(1, keepdim=True))
    return shares * squared_norms.sqrt().pow(power)


def ria_keep(scores: Tensor, pattern: UniformPattern, group: Group) -> Tensor:
    """Keep-mask bool `[out, in]` by `ria_scores`; unstructured counts in `group`."""
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(scores, pattern)
    rows = scores.reshape(1, -1) if group == "layer" else scores
    return prune_lowest(rows, pattern.n_pruned(rows.shape[1])).reshape(scores.shape)


def _divisor(sums: Tensor) -> Tensor:
    """1 for a sum of 0; NaN for one that overflows, by which all shares would be 0."""
    return sums.masked_fill(sums == 0, 1).masked_fill(sums.isinf(), nan)


__all__ = ["RIA", "ria_keep", "ria_scores"]
