"""RIA: weights relative to their row and column, times the norms of their inputs (arXiv 2402.12419)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import ClassVar, Literal

from torch import Tensor

from methods.engine.layerwise import Score
from methods.engine.statistics import InputNorms
from methods.engine.steps import Problem, Solution, dead_inputs
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite

Group = Literal["layer", "output"]


@dataclass(frozen=True)
class RIA(Score):
    """Relative importance and activations: scores a weight by its share of its row and of its column.

    Removing a large weight from a column of large weights costs less than removing it from a column of small
    ones; by magnitude alone whole rows and columns would be removed. For N:M the authors also permute input
    channels before the groups of M are formed. This changes the order in which the model computes and is
    omitted here, because the benchmark compares scores.

    Attributes:
        activation_power: exponent of the input's norm, at least 0; the paper's a.
        group: the set that an unstructured pattern compares: the whole matrix (`layer`, the authors' default)
            or each row (`output`). An N:M pattern always compares within each group of M.
    """

    activation_power: float = 0.5
    group: Group = "layer"

    name: ClassVar[str] = "ria"
    version: ClassVar[int] = 1
    statistics = (InputNorms,)

    def __post_init__(self) -> None:
        if not 0 <= self.activation_power < inf:
            raise InputError(
                f"method 'ria': activation_power must be at least 0, not {self.activation_power:g}"
            )

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear or one output row, depending on `group`."""
        return shape if self.group == "layer" else (1, shape[1])

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        scores = ria_scores(problem.weight, problem.squared_norms, self.activation_power)
        require_finite(scores, problem.name, "its RIA scores")
        rank = "rank lowest" if self.activation_power else "rank by themselves alone"
        warnings = dead_inputs(problem.squared_norms, rank)
        return Solution(ria_keep(scores, problem.pattern, self.group), warnings=warnings)


def ria_scores(weight: Tensor, squared_norms: Tensor, power: float) -> Tensor:
    """Returns (|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) * ||X_j||^a (arXiv 2402.12419).

    In a row or column of zeros the share is 0 (0 / 0 counts as 0). If the sum of a row or column overflows
    fp32, its scores are NaN.

    Args:
        weight: fp32 `[out, in]`.
        squared_norms: `[in]`, sum of X_tj^2 over all calibration tokens.
        power: a, at least 0; with 0 every norm counts as 1, even that of a dead input.

    Returns:
        fp32 `[out, in]`.
    """
    magnitude = weight.abs()
    shares = magnitude / _divisor(magnitude.sum(0)) + magnitude / _divisor(magnitude.sum(1, keepdim=True))
    return shares * squared_norms.sqrt().pow(power)


def ria_keep(scores: Tensor, pattern: UniformPattern, group: Group) -> Tensor:
    """Returns a keep-mask bool `[out, in]` by `ria_scores`; unstructured patterns compare within `group`."""
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(scores, pattern)
    rows = scores.reshape(1, -1) if group == "layer" else scores
    return prune_lowest(rows, pattern.n_pruned(rows.shape[1])).reshape(scores.shape)


def _divisor(sums: Tensor) -> Tensor:
    """Replaces a sum of 0 by 1, and a sum that overflows by NaN, because it would make all shares 0."""
    return sums.masked_fill(sums == 0, 1).masked_fill(sums.isinf(), nan)


__all__ = ["RIA", "ria_keep", "ria_scores"]
