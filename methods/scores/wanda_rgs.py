"""Wanda++'s regional gradient score: Wanda's, with the gradients of one decoder layer (arXiv 2503.04992)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from methods.engine.layerwise import Score
from methods.engine.statistics import InputNorms
from methods.engine.steps import Problem, Solution, dead_inputs
from methods.errors import InputError
from methods.masks.pattern import UniformPattern
from methods.masks.selection import require_finite
from methods.scores.wanda import wanda_keep


@dataclass(frozen=True)
class WandaRGS(Score):
    """The regional gradient score (alpha G_ij + ||X_j||_2) |W_ij|, compared as Wanda compares.

    G_ij is the root mean square over samples of the gradient of ||f(X_n)||_2 with respect to W_ij, where f is
    the dense decoder layer and X_n the hidden states that enter it for one sample. ||X_j||_2 is the norm per
    sample, sqrt(sum_t X_tj^2 / n), as in Wanda's code: here its size relative to G matters. Wanda++ also
    optimizes the layer's weights between two prunes. That is not part of the score; an update such as `refit`
    takes its place.

    Attributes:
        gradient_scale: alpha.
    """

    gradient_scale: float = 100.0

    name: ClassVar[str] = "wanda-rgs"
    version: ClassVar[int] = 1
    statistics = (InputNorms,)
    reads_regional_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.gradient_scale < inf:
            raise InputError(
                f"method 'wanda-rgs': gradient_scale must be at least 0, not {self.gradient_scale:g}"
            )

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """An output row."""
        return (1, shape[1])

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        scores = regional_scores(
            problem.weight,
            problem.squared_norms / problem.n_samples,
            problem.regional_gradients,
            self.gradient_scale,
        )
        require_finite(scores, problem.name, "its regional gradient scores")
        warnings = dead_inputs(problem.squared_norms, "rank lowest")
        return Solution(wanda_keep(scores, problem.pattern), warnings=warnings)


def regional_scores(
    weight: Tensor, squared_norms: Tensor, squared_gradients: Tensor, gradient_scale: float
) -> Tensor:
    """(alpha sqrt(mean_n g_nij^2) + sqrt(mean_n ||X_nj||^2)) |W_ij| (arXiv 2503.04992, equation 4).

    Args:
        weight: fp32 `[out, in]`.
        squared_norms: `[in]`, mean over samples of the sum over a sample's tokens.
        squared_gradients: fp32 `[out, in]`, mean over samples.
        gradient_scale: alpha.

    Returns:
        fp32 `[out, in]`.
    """
    factors = squared_gradients.sqrt().mul_(gradient_scale).add_(squared_norms.sqrt())
    return factors.mul_(weight.abs())


__all__ = ["WandaRGS", "regional_scores"]
