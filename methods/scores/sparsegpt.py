"""SparseGPT: prunes column by column and compensates for each removed weight (arXiv 2301.00774)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.engine.layerwise import Score
from methods.engine.statistics import GramMatrix
from methods.engine.steps import Problem, Solution
from methods.errors import InputError
from methods.masks.pattern import UniformPattern
from methods.updates.inverse_factor import InverseFactor
from methods.updates.sparsegpt_block import block_size
from methods.updates.sparsegpt_columns import kernel_warnings, require_finite_scores, solve_columns


@dataclass(frozen=True)
class SparseGPT(Score):
    """Optimal-brain-surgeon pruning with one shared inverse Hessian per Linear.

    Attributes:
        damping: damping added to the Hessian's diagonal, relative to its mean.
        block_size: number of columns masked at once; with N:M, the largest multiple of M up to this.
    """

    damping: float = 0.01
    block_size: int = 128

    name: ClassVar[str] = "sparsegpt"
    version: ClassVar[int] = 2
    reconstructs: ClassVar[bool] = True
    statistics = (GramMatrix,)
    solver_bytes: ClassVar[int] = 12

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise InputError(f"method 'sparsegpt': damping must be above 0, not {self.damping}")
        if self.block_size < 1:
            raise InputError(f"method 'sparsegpt': block_size must be at least 1, not {self.block_size}")

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """All rows of one block of columns."""
        return (shape[0], block_size(pattern, self.block_size))

    def choose(self, problem: Problem) -> Solution:
        """Masks and reconstructs one Linear.

        Raises:
            NonFiniteError: the Hessian or a score overflows.
            SingularHessianError: the Hessian cannot be factorized even with the highest damping.
        """
        factor = InverseFactor.of(problem, self.damping)
        width = block_size(problem.pattern, self.block_size)
        weight = problem.weight.masked_fill(factor.dead, 0)
        keep, solved = solve_columns(weight, factor.upper, problem.pattern, width)
        require_finite_scores(problem.name, solved, factor.upper)
        warnings = (*factor.raised(self.damping), *kernel_warnings(weight))
        return Solution(keep, solved, factor.damping, warnings=warnings, weight_warnings=factor.zeroed)


__all__ = ["SparseGPT"]
