"""The normal equations of one Linear with scaled inputs, which ADMM, ALPS and the refit solve.

With D = diag(d), d_j = ||X_j||, the problem min ||X W^T - X W'^T||^2 is solved for B = W' D with
A = D^-1 X^T X D^-1, whose diagonal is one. Columns that differ by orders of magnitude then no longer worsen
the conditioning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_NORM = 1e-8
"""Added to each input's norm, to avoid a division by zero for inputs that were never active."""


@dataclass(frozen=True)
class ScaledGram:
    """A damped Gram matrix whose inputs are scaled to equal norms.

    Attributes:
        matrix: A, `[in, in]`.
        scale: d, `[in]`: a scaled weight is B = W * d.
    """

    matrix: Tensor
    scale: Tensor

    @classmethod
    def damped_first(cls, gram: Tensor, damping: float) -> ScaledGram:
        """Damps by `damping` times the mean of the diagonal, then scales (ALPS, arXiv 2406.07831).

        Args:
            gram: X^T X, `[in, in]`; not changed.
            damping: at least 0.
        """
        damped = gram.clone()
        damped.diagonal().add_(damping * gram.diagonal().mean())
        return cls._scaled(damped)

    @classmethod
    def damped_last(cls, gram: Tensor, damping: float) -> ScaledGram:
        """Scales, then damps by `damping` times the mean of the diagonal (ADMM, arXiv 2401.02938)."""
        scaled = cls._scaled(gram.clone())
        diagonal = scaled.matrix.diagonal()
        diagonal.add_(damping * diagonal.mean())
        return scaled

    @classmethod
    def _scaled(cls, gram: Tensor) -> ScaledGram:
        """Scales `gram` in place."""
        scale = gram.diagonal().sqrt() + SMALLEST_NORM
        return cls(gram.div_(scale[:, None]).div_(scale), scale)

    def targets(self, scaled_weight: Tensor) -> Tensor:
        """Returns the right-hand side T = B A of the dense weight, `[out, in]`.

        A is damped here too, so that damping pulls the solution towards the dense weight.
        """
        return scaled_weight @ self.matrix


def conjugate_gradients(start: Tensor, keep: Tensor, matrix: Tensor, targets: Tensor, steps: int) -> Tensor:
    """Solves X A = T for the entries where `keep` is True, each row separately (ALPS, arXiv 2406.07831).

    Args:
        start: `[out, in]`, zero where `keep` is False.
        keep: bool `[out, in]`.
        matrix: A, symmetric and positive `[in, in]`, with ones on its diagonal, so that no further
            preconditioning is needed.
        targets: T, `[out, in]`.
        steps: number of steps.

    Returns:
        X, `[out, in]`, zero where `keep` is False; in the dtype of `start`.
    """
    solution = start.clone()
    support = keep.to(start.dtype)
    residual = (targets - solution @ matrix).mul_(support)
    direction = residual.clone()
    squared = residual.square().sum(1, keepdim=True)
    solved = squared * torch.finfo(start.dtype).eps ** 2
    for _ in range(steps):
        turned = direction @ matrix
        # Stop a row whose residual is down to rounding errors: quotients of these are meaningless.
        step = squared * (squared > solved) / _no_zero((direction * turned).sum(1, keepdim=True))
        solution.addcmul_(step, direction)
        residual.addcmul_(step, turned.mul_(support), value=-1)
        before, squared = squared, residual.square().sum(1, keepdim=True)
        direction.mul_(squared / _no_zero(before)).add_(residual)
    return solution


def _no_zero(values: Tensor) -> Tensor:
    """Replaces denominators of zero by 1e-8; such a row is solved, and its numerator is zero too."""
    return torch.where(values == 0, 1e-8, values)


__all__ = ["ScaledGram", "conjugate_gradients"]
