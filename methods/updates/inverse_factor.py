"""The factor of an inverse Hessian, which SparseGPT uses to spread errors (arXiv 2301.00774)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.engine.steps import Problem
from methods.errors import SingularHessianError
from methods.masks.selection import require_finite

MAX_DAMPING_RAISES = 3

DIRECT_INVERSE = 256
"""Triangular matrices of up to this many rows are inverted directly."""


@dataclass(frozen=True)
class InverseFactor:
    """The factorized inverse of a damped Hessian.

    Attributes:
        upper: U, fp32 `[in, in]`, H^-1 = U^T U.
        damping: the damping that was needed, relative to the mean of the diagonal.
        dead: bool `[in]`, inputs that were never active.
    """

    upper: Tensor
    damping: float
    dead: Tensor

    @classmethod
    def of(cls, problem: Problem, damping: float) -> InverseFactor:
        """Factorizes (2 / n_samples) * X^T X; targets that read the same inputs share the result.

        Args:
            problem: the target.
            damping: damping to add to the diagonal, relative to its mean.

        Raises:
            NonFiniteError: the Hessian overflows.
            SingularHessianError: the Hessian cannot be factorized even with the highest damping.
        """

        def factorize() -> InverseFactor:
            hessian = problem.gram * (2 / problem.n_samples)
            diagonal = hessian.diagonal()
            dead = diagonal == 0
            diagonal.masked_fill_(dead, 1)
            return cls(*inverse_factor(problem.name, hessian, damping), dead)

        return problem.shared((cls, damping), factorize)

    def raised(self, wanted: float) -> tuple[str, ...]:
        """Returns a warning if more damping than `wanted` was needed."""
        if self.damping == wanted:
            return ()
        return (f"the Hessian needed damping {self.damping:g} instead of {wanted:g}",)

    @property
    def zeroed(self) -> tuple[str, ...]:
        """A warning if inputs were never active, because the solver sets their weights to 0."""
        n_dead = int(self.dead.sum())
        return (f"{n_dead} inputs were never active; their weights were set to 0",) if n_dead else ()


def inverse_factor(name: str, hessian: Tensor, damping: float) -> tuple[Tensor, float]:
    """Returns the upper Cholesky factor U of the inverse of the damped Hessian, H^-1 = U^T U.

    The inverse itself is never computed. With rows and columns in reverse order, H has a lower factor L.
    Therefore H = R R^T, where R is L in reverse order and upper triangular, and U = R^-1: this takes one
    factorization and one triangular inverse. If the Hessian cannot be factorized, the damping is raised
    tenfold, up to three times.

    Args:
        name: name of the module, for error messages.
        hessian: fp32 `[in, in]`, no zero on its diagonal; not changed.
        damping: relative to the mean of the diagonal.

    Returns:
        U fp32 `[in, in]`, and the damping that was needed.

    Raises:
        NonFiniteError: the Hessian overflows.
        SingularHessianError: the Hessian cannot be factorized even with the highest damping.
    """
    undamped = hessian.diagonal().flip(0)
    mean = undamped.mean()
    # No entry is larger in magnitude than the largest entry of the diagonal.
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
    """Inverts a lower triangular matrix `[n, n]` by recursive halving, mostly with matrix products.

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
