"""ADMM: prunes gradually during the alternating direction method of multipliers (arXiv 2401.02938)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.engine.layerwise import Score
from methods.engine.statistics import GramMatrix
from methods.engine.steps import Problem, Solution, dead_inputs
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern, Unstructured
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite
from methods.updates.admm import ADMMSystem, require_admm_settings

Schedule = Literal["gradual", "released"]


@dataclass(frozen=True)
class ADMM(Score):
    """Chooses a new mask in each of the first iterations of ADMM, from |V + U| of the whole matrix.

    Attributes:
        iterations: number of iterations of ADMM.
        mask_iterations: number of iterations, from the first, that choose a mask; later ones keep the last.
        schedule: `gradual`: the sparsity grows as s_t = s - s (1 - (t + 1) / mask_iterations)^3, as in the
            paper. `released`: as in the authors' code, an unstructured mask has its full sparsity from the
            first iteration on. With N:M the sparsity grows in both.
        damping: damping added to the diagonal of the scaled Gram matrix, relative to its mean.
    """

    iterations: int = 20
    mask_iterations: int = 15
    schedule: Schedule = "gradual"
    damping: float = 0.1

    name: ClassVar[str] = "admm"
    version: ClassVar[int] = 1
    reconstructs: ClassVar[bool] = True
    statistics = (GramMatrix,)
    solver_bytes: ClassVar[int] = 12

    def __post_init__(self) -> None:
        require_admm_settings("method 'admm'", self.iterations, self.damping)
        if not 1 <= self.mask_iterations <= self.iterations:
            raise InputError(
                f"method 'admm': mask_iterations must be from 1 to iterations ({self.iterations}), "
                f"not {self.mask_iterations}"
            )

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear."""
        return shape

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        if not problem.pattern.n_pruned(problem.weight.numel()):
            return Solution(torch.ones_like(problem.weight, dtype=torch.bool))
        system = ADMMSystem.of(problem, self.damping)
        keep, weight = system.solve(problem.weight, self.iterations, self.masks(problem.pattern))
        require_finite(weight, problem.name, "its ADMM weights")
        warnings = dead_inputs(problem.squared_norms, "rank lowest")
        return Solution(keep, weight, self.damping, warnings=warnings)

    def masks(self, pattern: UniformPattern) -> Callable[[int, Tensor], Tensor | None]:
        """Returns the function that chooses the mask of each iteration from |V + U|."""

        def choose(iteration: int, scores: Tensor) -> Tensor | None:
            if iteration >= self.mask_iterations:
                return None
            gradual = self.schedule == "gradual" or isinstance(pattern, SemiStructured)
            grown = grown_share(iteration, self.mask_iterations) if gradual else Fraction(1)
            return admm_keep(scores.abs(), pattern, grown)

        return choose


def grown_share(iteration: int, of: int) -> Fraction:
    """Returns the exact fraction of the final sparsity in iteration t: 1 - (1 - (t + 1) / of)^3."""
    return 1 - (1 - Fraction(iteration + 1, of)) ** 3


def admm_keep(scores: Tensor, pattern: UniformPattern, grown: Fraction) -> Tensor:
    """Returns a keep-mask bool `[out, in]` that removes the lowest scores of the whole matrix.

    Args:
        scores: |V + U|, `[out, in]`.
        pattern: the final pattern; with N:M, the N largest of each M are never removed.
        grown: fraction of the final sparsity to remove now.
    """
    if isinstance(pattern, SemiStructured):
        if grown == 1:
            return prune_n_of_m(scores, pattern)
        scores = scores.masked_fill(prune_n_of_m(scores, pattern), torch.inf)
        sparsity = Fraction(pattern.m - pattern.n, pattern.m)
    else:
        assert isinstance(pattern, Unstructured)
        sparsity = pattern.sparsity
    lowest = floor(scores.numel() * sparsity * grown)
    return prune_lowest(scores.reshape(1, -1), lowest).reshape(scores.shape)


__all__ = ["ADMM", "admm_keep", "grown_share"]
