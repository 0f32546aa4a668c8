"""SparseGPT's walk through the columns of a weight: pure tensor functions (arXiv 2301.00774)."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.pattern import SemiStructured, UniformPattern, prune_lowest, prune_n_of_m

PANEL = 32
"""Columns of a panel, a part of a block; it changes the order of sums and nothing else."""


def block_size(pattern: UniformPattern, wanted: int) -> int:
    """`wanted`, or for N:M the largest multiple of M that is not larger (but at least M)."""
    if isinstance(pattern, SemiStructured):
        return max(pattern.m, wanted // pattern.m * pattern.m)
    return wanted


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


__all__ = ["block_size", "panel_width", "solve_columns"]
