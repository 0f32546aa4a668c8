"""SparseGPT: masks column by column and makes up for each removed weight (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from methods.base import CalibrationSet, LayerReport, Placement, PruneResult, ignore_layer, with_calibration
from methods.engine.layerwise import Solution, prune_layer_by_layer
from methods.engine.statistics import GramMatrix
from methods.errors import InputError, SingularHessianError
from methods.masks.pattern import SparsityPattern, UniformPattern
from methods.masks.selection import require_finite
from methods.updates.sparsegpt_block import block_size
from methods.updates.sparsegpt_columns import kernel_problem, solve_columns

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_DAMPING_RAISES = 3

DIRECT_INVERSE = 256
"""A triangular matrix of so many rows is inverted at once."""


@dataclass(frozen=True)
class SparseGPT:
    """Optimal-brain-surgeon pruning with one shared inverse Hessian a Linear.

    Attributes:
        damping: added to the Hessian's diagonal, relative to its mean.
        block_size: columns masked at once; a pattern N:M takes the largest multiple of M that fits.
    """

    damping: float = 0.01
    block_size: int = 128

    name: ClassVar[str] = "sparsegpt"
    version: ClassVar[int] = 2
    needs_calibration: ClassVar[bool] = True
    reconstructs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise InputError(f"method 'sparsegpt': damping must be above 0, not {self.damping}")
        if self.block_size < 1:
            raise InputError(f"method 'sparsegpt': block_size must be at least 1, not {self.block_size}")

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """All rows of one block of columns."""
        return (shape[0], block_size(pattern, self.block_size))

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`."""
        calibration = with_calibration(self.name, calibration)
        scale = 2 / calibration.n_samples

        def solve(name: str, weight: Tensor, gram: _SharedHessian, pattern: UniformPattern) -> Solution:
            if gram.factor is None:
                gram.factor = self.factorize(name, gram.value * scale)
            solution = self.solve(weight, gram.factor, pattern)
            require_finite_scores(name, solution, gram.factor)
            return solution

        return prune_layer_by_layer(
            model,
            pattern,
            calibration,
            statistic=_SharedHessian.of,
            solve=solve,
            placement=placement,
            on_layer=on_layer,
        )

    def factorize(self, name: str, hessian: Tensor) -> InverseFactor:
        """What the columns of every Linear that reads the same inputs are solved with.

        Args:
            name: of the first of them, for the error.
            hessian: (2 / n_samples) * X^T X, fp32 `[in, in]`; its diagonal is changed.

        Raises:
            NonFiniteError: the Hessian overflows.
            SingularHessianError: no factor even at the highest damping.
        """
        diagonal = hessian.diagonal()
        dead = diagonal == 0
        diagonal.masked_fill_(dead, 1)
        factor, damping = inverse_factor(name, hessian, self.damping)
        return InverseFactor(factor, damping, dead)

    def solve(self, weight: Tensor, factor: InverseFactor, pattern: UniformPattern) -> Solution:
        """Prunes and reconstructs one Linear.

        Args:
            weight: fp32 `[out, in]`; not changed.
            factor: of the Hessian of its inputs.
            pattern: what to remove.
        """
        weight = weight.masked_fill(factor.dead, 0)
        keep, weight = solve_columns(weight, factor.upper, pattern, block_size(pattern, self.block_size))
        warnings = []
        if n_dead := int(factor.dead.sum()):
            warnings.append(f"{n_dead} inputs were never active; their weights were set to 0")
        if factor.damping != self.damping:
            warnings.append(f"the Hessian needed damping {factor.damping:g} instead of {self.damping:g}")
        if weight.is_cuda and (problem := kernel_problem(weight.device)):
            warnings.append(f"solved without the GPU kernel, which is slow: {problem}")
        return Solution(keep, weight, factor.damping, warnings=tuple(warnings))


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


def require_finite_scores(name: str, solution: Solution, factor: InverseFactor) -> None:
    """Raises `NonFiniteError` if any weight survived by a score W^2 / U_jj^2 that is NaN or infinite.

    Survivors stand for all: a pruned weight scores no higher, and NaN in a row spreads to all that follow it.
    One pass over the weight, where checking the scores themselves would hold up a GPU at every block.
    """
    assert solution.weight is not None
    lowest, highest = torch.aminmax(solution.weight, dim=0)
    largest = torch.maximum(lowest.neg(), highest)
    require_finite((largest / factor.upper.diagonal()).square_(), name, "its SparseGPT scores")


class _SharedHessian(GramMatrix):
    """A Gram matrix that is factorized once, however many targets read the same inputs."""

    factor: InverseFactor | None = None


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


__all__ = ["InverseFactor", "SparseGPT", "inverse_factor", "inverse_of_lower"]
