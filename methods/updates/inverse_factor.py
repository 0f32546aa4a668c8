"""The factor of an inverse Hessian, with which SparseGPT walks through columns (arXiv 2301.00774)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.engine.steps import Problem
from methods.errors import SingularHessianError
from methods.masks.selection import require_finite

MAX_DAMPING_RAISES = 3

DIRECT_INVERSE = 256
"""A triangular matrix of so many rows is inverted at once."""


@dataclass(frozen=True)
class InverseFactor:
    """The factorized inverse of a damped Hessian.

    Attributes:
        upper: U, fp32 `[in, in]`, H^-1 = U^T U.
        damping: what it took, relative to the mean of the diagonal.
        dead: bool `[in]`, inputs that were never active.
    """

    upper: Tensor
    damping: float
    dead: Tensor

    @classmethod
    def of(cls, problem: Problem, damping: float) -> InverseFactor:
        """The factor of (2 / n_samples) * X^T X; targets that read the same inputs share it.

        Args:
            problem: the target.
            damping: added to the diagonal, relative to its mean.

        Raises:
            NonFiniteError: the Hessian overflows.
            SingularHessianError: no factor even at the highest damping.
        """

        def factorize() -> InverseFactor:
            hessian = problem.gram * (2 / problem.n_samples)
            diagonal = hessian.diagonal()
            dead = diagonal == 0
            diagonal.masked_fill_(dead, 1)
            return cls(*inverse_factor(problem.name, hessian, damping), dead)

        return problem.shared((cls, damping), factorize)

    def raised(self, wanted: float) -> tuple[str, ...]:
        """The warning that it took more damping than was `wanted`; none where it did not."""
        if self.damping == wanted:
            return ()
        return (f"the Hessian needed damping {self.damping:g} instead of {wanted:g}",)

    @property
    def zeroed(self) -> tuple[str, ...]:
        """The warning that inputs never were active, whose weights are 0 wherever it solves them."""
        n_dead = int(self.dead.sum())
        return (f"{n_dead} inputs were never active; their weights were set to 0",) if n_dead else ()


def inverse_factor(name: str, hessian: Tensor, damping: float) -> tuple[Tensor, float]:
    """The upper Cholesky factor U of the inverse of the damped Hessian, H^-1 = U^T U.

    The inverse itself is never formed. Read backwards, H has a lower factor L, so that in its own order
    H = R R^T with R = L read backwards, which is upper triangular, and U = R^-1: one factorization and one
    triangular inverse. Damping is raised tenfold, up to three times, where the Hessian cannot be factorized.

    Args:
        name: of the module, for the error.
        hessian: fp32 `[in, in]`, no zero on its diagonal; not changed.
        damping: relative to the mean of the diagonal.

    Returns:
        U fp32 `[in, in]`, and the damping it took.

    Raises:
        NonFiniteError: the Hessian overflows.
        SingularHessianError: it takes more.
    """
    undamped = hessian.diagonal().flip(0)
    mean = undamped.mean()
    # No entry is larger in size than the diagonal's largest.
    require_finite(mean, name, "the diagonal of its Hessian, or its sum,")
    backwards = hessian.flip(0, 1)
    for raised in range(MAX_DAMPING_RAISES + 1):
        tried = damping * 10**raised
        backwards.diagonal().copy_(undamped + tried * mean)
        lower, failed = torch.linalg.cholesky_ex(backwards)
        if int(failed):
            continue
        upper = inverse_of_lower(lower).flip(0, 1)
        if bool(torch.isfinite(upper).all()):
            return upper, tried
    raise SingularHessianError(f"{name}: its Hessian is singular even with damping {tried:g}")


def inverse_of_lower(lower: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix `[n, n]`, by halves: nearly all of it is matrix products.

    With L = [[A, 0], [B, C]], L^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]].
    """
    n = len(lower)
    if n <= DIRECT_INVERSE:
        identity = torch.eye(n, dtype=lower.dtype, device=lower.device)
        direct: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
        return direct
    half = n // 2
    inverse = torch.zeros_like(lower)
    first = inverse[:half, :half] = inverse_of_lower(lower[:half, :half])
    second = inverse[half:, half:] = inverse_of_lower(lower[half:, half:])
    inverse[half:, :half] = (second @ (lower[half:, :half] @ first)).neg_()
    return inverse


__all__ = ["InverseFactor", "inverse_factor", "inverse_of_lower"]
