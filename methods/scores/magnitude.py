"""Magnitude pruning: removes the smallest weights of each Linear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.engine.layerwise import Score
from methods.engine.steps import Problem, Solution
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m


@dataclass(frozen=True)
class Magnitude(Score):
    """Score |W|, compared over the whole Linear (with N:M: within each group of M)."""

    name: ClassVar[str] = "magnitude"
    version: ClassVar[int] = 1

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear."""
        return shape

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        return Solution(magnitude_keep(problem.weight, problem.pattern))


def magnitude_keep(weight: Tensor, pattern: UniformPattern) -> Tensor:
    """Returns a keep-mask by |W|.

    Args:
        weight: `[out, in]`.
        pattern: what to remove; an unstructured pattern compares all of `weight`.

    Returns:
        bool `[out, in]`.
    """
    scores = weight.float().abs()
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(scores, pattern)
    return prune_lowest(scores.reshape(1, -1), pattern.n_pruned(scores.numel())).reshape(weight.shape)


__all__ = ["Magnitude", "magnitude_keep"]
