"""SparseGPT: masks column by column and makes up for each removed weight (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from methods.base import CalibrationSet, LayerReport, Placement, PruneResult, ignore_layer, with_calibration
from methods.errors import InputError, SingularHessianError
from methods.layerwise import Solution, prune_layer_by_layer
from methods.pattern import SemiStructured, SparsityPattern, UniformPattern, prune_lowest, prune_n_of_m
from methods.statistics import GramMatrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_DAMPING_RAISES = 3

PANEL = 32
"""Columns of a panel, a part of a block; it changes the order of sums and nothing else."""


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
    version: ClassVar[int] = 1
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

        def solve(name: str, weight: Tensor, gram: GramMatrix, pattern: UniformPattern) -> Solution:
            return self.solve(name, weight, gram.value * scale, pattern)

        return prune_layer_by_layer(
            model,
            pattern,
            calibration,
            statistic=GramMatrix.of,
            solve=solve,
            placement=placement,
            on_layer=on_layer,
        )

    def solve(self, name: str, weight: Tensor, hessian: Tensor, pattern: UniformPattern) -> Solution:
        """Prunes and reconstructs one Linear.

        Args:
            name: of the module, for errors.
            weight: fp32 `[out, in]`; not changed.
            hessian: (2 / n_samples) * X^T X, fp32 `[in, in]`; not changed.
            pattern: what to remove.

        Raises:
            SingularHessianError: no factor even at the highest damping.
        """
        diagonal = hessian.diagonal()
        dead = diagonal == 0
        hessian = hessian + torch.diag(dead.float())
        weight = weight.masked_fill(dead, 0)
        factor, damping = inverse_factor(name, hessian, self.damping)
        keep, weight = solve_columns(weight, factor, pattern, block_size(pattern, self.block_size))
        warnings = []
        if n_dead := int(dead.sum()):
            warnings.append(f"{n_dead} inputs were never active; their weights were set to 0")
        if damping != self.damping:
            warnings.append(f"the Hessian needed damping {damping:g} instead of {self.damping:g}")
        return Solution(keep, weight, damping, warnings=tuple(warnings))


def block_size(pattern: UniformPattern, wanted: int) -> int:
    """`wanted`, or for N:M the largest multiple of M that is not larger (but at least M)."""
    if isinstance(pattern, SemiStructured):
        return max(pattern.m, wanted // pattern.m * pattern.m)
    return wanted


def inverse_factor(name: str, hessian: Tensor, damping: float) -> tuple[Tensor, float]:
    """The upper Cholesky factor U of the inverse of the damped Hessian, H^-1 = U^T U.

    Damping is raised tenfold, up to three times, where the Hessian cannot be factorized.

    Args:
        name: of the module, for the error.
        hessian: fp32 `[in, in]`, no zero on its diagonal.
        damping: relative to the mean of the diagonal.

    Returns:
        U fp32 `[in, in]`, and the damping it took.

    Raises:
        SingularHessianError: it takes more.
    """
    mean = hessian.diagonal().mean()
    for raised in range(MAX_DAMPING_RAISES + 1):
        tried = damping * 10**raised
        damped = hessian + torch.diag((tried * mean).expand(hessian.shape[0]))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not int(failed) and bool(torch.isfinite(upper).all()):
            return upper, tried
    raise SingularHessianError(f"{name}: its Hessian is singular even with damping {tried:g}")


def solve_columns(
    weight: Tensor, factor: Tensor, pattern: UniformPattern, width: int
) -> tuple[Tensor, Tensor]:
    """Goes through the columns from left to right, masks them and spreads each error to the right.

    Unstructured: of a block of columns the lowest W^2 / U_jj^2 over all rows are masked at once, on the
    weights as updated up to there. N:M: each group is chosen per row when the walk arrives at it.

    Args:
        weight: fp32 `[out, in]`; not changed.
        factor: U, fp32 `[in, in]`, upper triangular.
        pattern: what to remove.
        width: columns in a block; for N:M a multiple of M.

    Returns:
        keep bool `[out, in]` and the new weight fp32 `[out, in]`, zero where pruned.
    """
    weight = weight.clone()
    keep = torch.ones_like(weight, dtype=torch.bool)
    n_inputs = weight.shape[1]
    narrow = panel_width(pattern)
    for start in range(0, n_inputs, width):
        end = min(start + width, n_inputs)
        block, kept = weight[:, start:end], keep[:, start:end]
        if not isinstance(pattern, SemiStructured):
            scores = (block / factor.diagonal()[start:end]).square()
            kept[:] = prune_lowest(scores.reshape(1, -1), pattern.n_pruned(block.numel())).reshape(
                block.shape
            )
        errors = torch.empty_like(block)
        for left in range(0, end - start, narrow):
            right = min(left + narrow, end - start)
            u = factor[start + left : start + right, start + left : end]
            panel, kept_panel, errors_panel = _solve_panel(
                block[:, left:right].T.contiguous(), kept[:, left:right].T.contiguous(), u, pattern
            )
            block[:, left:right] = panel.T
            kept[:, left:right] = kept_panel.T
            errors[:, left:right] = errors_panel.T
            block[:, right:] -= errors_panel.T @ u[:, right - left :]
        weight[:, end:] -= errors @ factor[start:end, end:]
    return keep, weight.masked_fill(~keep, 0)


def panel_width(pattern: UniformPattern) -> int:
    """Columns whose errors are spread one by one; beyond them a panel's errors go in one product."""
    return block_size(pattern, PANEL)


def _solve_panel(
    weight_CO: Tensor, keep_CO: Tensor, u: Tensor, pattern: UniformPattern
) -> tuple[Tensor, Tensor, Tensor]:
    """The walk through a few columns, each of them contiguous in memory.

    Args:
        weight_CO: fp32 `[columns, out]`; changed in place.
        keep_CO: bool `[columns, out]`; given when unstructured, filled in for N:M.
        u: the rows of U that belong to these columns, from their own diagonal on.
        pattern: what to remove.

    Returns:
        The weights, the mask, and the columns' errors (w - q) / U_jj, `[columns, out]` each.
    """
    pivots = u.diagonal()
    errors = torch.empty_like(weight_CO)
    for column in range(weight_CO.shape[0]):
        if isinstance(pattern, SemiStructured) and column % pattern.m == 0:
            group = slice(column, column + pattern.m)
            scores = (weight_CO[group] / pivots[group, None]).square()
            keep_CO[group] = prune_n_of_m(scores.T.contiguous(), pattern).T
        # A surviving weight makes no error; a masked one becomes 0 by its own update.
        torch.div(weight_CO[column].masked_fill(keep_CO[column], 0), pivots[column], out=errors[column])
        weight_CO[column:].addr_(u[column, column : weight_CO.shape[0]], errors[column], alpha=-1)
    return weight_CO, keep_CO, errors


__all__ = ["SparseGPT", "block_size", "inverse_factor", "solve_columns"]
