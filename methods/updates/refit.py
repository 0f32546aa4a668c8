"""Refit: recomputes the surviving weights to approximate the dense outputs (arXiv 2406.07831)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from torch import Tensor

from methods.engine.statistics import GramMatrix
from methods.engine.steps import Problem, Solution, Update
from methods.errors import InputError
from methods.updates.scaled_gram import ScaledGram, conjugate_gradients


@dataclass(frozen=True)
class Refit(Update):
    """Least squares with a given mask: min ||X W^T - X W'^T||^2 over the surviving entries of each row of W'.

    The masked normal equations are solved by conjugate gradients. They are scaled by the norms of the inputs,
    and start from the dense values of the survivors, so that each step reduces the error.

    Attributes:
        steps: number of conjugate gradient steps.
        damping: damping added to the Gram matrix's diagonal, relative to its mean; pulls the result towards
            the dense weights.
    """

    steps: int = 10
    damping: float = 0.01

    name: ClassVar[str] = "refit"
    version: ClassVar[int] = 1
    statistics = (GramMatrix,)
    solver_bytes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"step 'refit': steps must be at least 1, not {self.steps}")
        if not 0 <= self.damping < inf:
            raise InputError(f"step 'refit': damping must be at least 0, not {self.damping:g}")

    def update(self, problem: Problem, found: Solution) -> Solution:
        """See `Update.update`."""
        scaled = problem.shared(
            (ScaledGram.damped_first, self.damping),
            lambda: ScaledGram.damped_first(problem.gram, self.damping),
        )
        weight = refit(problem.weight, found.keep, scaled, self.steps)
        return replace(found, weight=weight, damping=self.damping)


def refit(weight: Tensor, keep: Tensor, scaled: ScaledGram, steps: int) -> Tensor:
    """Returns the new weight `[out, in]`, zero where pruned, in the dtype of `weight`.

    Args:
        weight: dense weight, `[out, in]`.
        keep: bool `[out, in]`.
        scaled: the scaled Gram matrix of the inputs.
        steps: number of conjugate gradient steps.
    """
    dense = weight * scaled.scale
    start = dense.masked_fill(~keep, 0)
    solved = conjugate_gradients(start, keep, scaled.matrix, scaled.targets(dense), steps)
    return solved.div_(scaled.scale)


__all__ = ["Refit", "refit"]
