"""ALPS: ADMM at the exact sparsity, with a penalty that grows until the mask settles (arXiv 2406.07831)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from methods.engine.layerwise import Score
from methods.engine.statistics import GramMatrix
from methods.engine.steps import Problem, Solution, dead_inputs
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite
from methods.updates.scaled_gram import ScaledGram, conjugate_gradients

FIRST_PENALTY, HIGHEST_PENALTY = 0.1, 1e6
CHECKED_EVERY = 3
"""Number of iterations after which the change of the mask is checked, and the penalty updated."""
SETTLED_FROM, SETTLED_SHARE = 33, 0.0003
"""From this iteration on, the search ends if a smaller share of the mask changed since the last check."""


@dataclass(frozen=True)
class ALPS(Score):
    """Solves min ||X W^T - X W'^T||^2 under the exact sparsity constraint, then refits the survivors.

    Attributes:
        max_iterations: maximum number of iterations of ADMM; fewer if the mask settles before.
        damping: damping added to the Gram matrix's diagonal, relative to its mean.
        refit_steps: number of conjugate gradient steps with the final mask.
    """

    max_iterations: int = 300
    damping: float = 0.01
    refit_steps: int = 10

    name: ClassVar[str] = "alps"
    version: ClassVar[int] = 1
    reconstructs: ClassVar[bool] = True
    statistics = (GramMatrix,)
    solver_bytes: ClassVar[int] = 40

    def __post_init__(self) -> None:
        for setting in ("max_iterations", "refit_steps"):
            if getattr(self, setting) < 1:
                raise InputError(f"method 'alps': {setting} must be at least 1, not {getattr(self, setting)}")
        if not 0 <= self.damping < inf:
            raise InputError(f"method 'alps': damping must be at least 0, not {self.damping:g}")

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear."""
        return shape

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        n_pruned = problem.pattern.n_pruned(problem.weight.numel())
        if not n_pruned:
            return Solution(torch.ones_like(problem.weight, dtype=torch.bool))
        system = problem.shared((ALPSSystem, self.damping), lambda: ALPSSystem.of(problem.gram, self.damping))
        keep, weight = alps(
            problem.weight,
            system,
            problem.pattern,
            n_pruned,
            max_iterations=self.max_iterations,
            refit_steps=self.refit_steps,
        )
        require_finite(weight, problem.name, "its ALPS weights")
        warnings = dead_inputs(problem.squared_norms, "rank lowest")
        return Solution(keep, weight, self.damping, warnings=warnings)


@dataclass(frozen=True)
class ALPSSystem:
    """The matrices that all Linears with the same inputs share.

    Attributes:
        scaled: the damped and scaled Gram matrix A = Q diag(L) Q^T.
        vectors: Q, float64 `[in, in]`.
        values: L, float64 `[in]`.
    """

    scaled: ScaledGram
    vectors: Tensor
    values: Tensor

    @classmethod
    def of(cls, gram: Tensor, damping: float) -> ALPSSystem:
        """Creates the system of a Gram matrix `[in, in]`, which is not changed."""
        # In float64, because the choice of the mask can depend on the last bits of A.
        scaled = ScaledGram.damped_first(gram.double(), damping)
        values, vectors = torch.linalg.eigh(scaled.matrix)
        rounded = ScaledGram(scaled.matrix.to(gram.dtype), scaled.scale.to(gram.dtype))
        return cls(rounded, vectors, values)

    def inverse(self, penalty: float) -> Tensor:
        """Returns (A + rho I)^-1, computed in float64 and rounded to the dtype of A."""
        inverse = (self.vectors / (self.values + penalty)) @ self.vectors.T
        return inverse.to(self.scaled.matrix.dtype)


def alps(
    weight: Tensor,
    system: ALPSSystem,
    pattern: UniformPattern,
    n_pruned: int,
    *,
    max_iterations: int,
    refit_steps: int,
) -> tuple[Tensor, Tensor]:
    """Returns the mask and the new weights of one Linear.

    The refit always makes all of its steps. The authors' stopping test uses a residual that is not restricted
    to the surviving weights and does not become small.

    Args:
        weight: dense weight, `[out, in]`.
        system: the system of its inputs.
        pattern: what to remove.
        n_pruned: number of weights that the pattern removes in total.
        max_iterations: maximum number of iterations of ADMM.
        refit_steps: number of conjugate gradient steps afterwards.

    Returns:
        keep bool `[out, in]` and the new weight `[out, in]`, zero where pruned, in the dtype of `weight`.
    """
    dense = weight * system.scaled.scale
    targets = system.scaled.targets(dense)
    n_kept = max(weight.numel() - n_pruned, 1)
    b, keep = dense, largest(dense, pattern, n_pruned)
    d, v = dense.masked_fill(~keep, 0), torch.zeros_like(dense)
    penalty, started, kept_before = FIRST_PENALTY, False, keep
    inverse = system.inverse(penalty)
    for iteration in range(1, max_iterations + 1):
        b = (targets - v + penalty * d) @ inverse
        wanted = b + v / penalty
        keep = largest(wanted, pattern, n_pruned)
        d = wanted.masked_fill(~keep, 0)
        v = v + penalty * (b - d)
        if iteration % CHECKED_EVERY:
            continue
        moved = int((keep != kept_before).sum())
        kept_before = keep
        if moved == 0 and started:
            break
        if moved / n_kept > 0.1:
            penalty, started = penalty * 1.3, True
        elif moved / n_kept > 0.005:
            penalty, started = penalty * 1.2, True
        elif started:
            penalty *= 1.1
        else:
            # The initial penalty was too high for the mask to change.
            penalty /= 5
            if moved:
                b, d, v = (
                    dense,
                    dense.masked_fill(~largest(dense, pattern, n_pruned), 0),
                    torch.zeros_like(dense),
                )
        if iteration >= SETTLED_FROM and moved / n_kept < SETTLED_SHARE:
            break
        penalty = min(penalty, HIGHEST_PENALTY)
        inverse = system.inverse(penalty)
    keep = largest(b, pattern, n_pruned)
    solved = conjugate_gradients(b.masked_fill(~keep, 0), keep, system.scaled.matrix, targets, refit_steps)
    return keep, solved.div_(system.scaled.scale)


def largest(values: Tensor, pattern: UniformPattern, n_pruned: int) -> Tensor:
    """Returns a keep-mask bool `[out, in]` of the largest squares: of the whole matrix, or N of each M."""
    squares = values.square()
    if isinstance(pattern, SemiStructured):
        return prune_n_of_m(squares, pattern)
    return prune_lowest(squares.reshape(1, -1), n_pruned).reshape(values.shape)


__all__ = ["ALPS", "ALPSSystem", "alps", "largest"]
