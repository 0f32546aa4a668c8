"""Wanda: weights times the norms of their inputs (arXiv 2306.11695)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.engine.layerwise import Score
from methods.engine.statistics import InputNorms
from methods.engine.steps import Problem, Solution, dead_inputs
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite


@dataclass(frozen=True)
class Wanda(Score):
    """Score |W_ij| * ||X_j||_2, compared within each output row (with N:M: within each group of M)."""

    name: ClassVar[str] = "wanda"
    version: ClassVar[int] = 1
    statistics = (InputNorms,)

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """One output row."""
        return (1, shape[1])

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        scores = wanda_scores(problem.weight, problem.squared_norms)
        require_finite(scores, problem.name, "its Wanda scores")
        warnings = dead_inputs(problem.squared_norms, "rank lowest")
        return Solution(wanda_keep(scores, problem.pattern), warnings=warnings)


def wanda_scores(weight: Tensor, squared_norms: Tensor) -> Tensor:
    """Returns |W_ij| * sqrt(sum_t X_tj^2) (arXiv 2306.11695, equation 1).

    Args:
        weight: fp32 `[out, in]`.
        squared_norms: `[in]`, sum over all calibration tokens.

    Returns:
        fp32 `[out, in]`.
    """
    return weight.abs() * squared_norms.sqrt()


def wanda_keep(scores: Tensor, pattern: UniformPattern) -> Tensor:
    """Returns a keep-mask bool `[out, in]` by `wanda_scores`; unstructured patterns compare within rows."""
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(scores, pattern)
    return prune_lowest(scores, pattern.n_pruned(scores.shape[1]))


__all__ = ["Wanda", "wanda_keep", "wanda_scores"]
