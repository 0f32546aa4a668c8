"""SparseGPT's walk through the columns of a weight: pure tensor functions (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from methods.pattern import SemiStructured, UniformPattern, prune_lowest

PANEL = 32
"""Columns of a panel, a part of a block; it changes the order of sums and nothing else."""
MAX_COUNTED_GROUP = 16
"""The largest M whose ranks are counted by comparing all pairs, M * M * out bytes at once."""

BlockSolver = Callable[[Tensor, Tensor, Tensor, UniformPattern, int, int], Tensor]
"""`solve_block`, or the kernel that does the same on a GPU."""


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
    # The walk reads U by rows; a factorization lays it out by columns.
    factor = factor.contiguous()
    weight = weight.clone(memory_format=torch.contiguous_format)
    keep = torch.ones_like(weight, dtype=torch.bool)
    n_inputs = weight.shape[1]
    solve = block_solver(weight)
    for start in range(0, n_inputs, width):
        end = min(start + width, n_inputs)
        if not isinstance(pattern, SemiStructured):
            block = weight[:, start:end]
            scores = (block / factor.diagonal()[start:end]).square_().reshape(1, -1)
            lowest_go = prune_lowest(scores, pattern.n_pruned(block.numel()))
            keep[:, start:end] = lowest_go.reshape(block.shape)
        errors = solve(weight, keep, factor, pattern, start, end)
        weight[:, end:].addmm_(errors, factor[start:end, end:], alpha=-1)
    return keep, weight.masked_fill_(~keep, 0)


def block_solver(weight: Tensor) -> BlockSolver:
    """What solves the blocks of `weight`: the kernel for fp32 on a GPU that it serves, else its twin."""
    if not weight.is_cuda or weight.dtype != torch.float32 or kernel_problem(weight.device) is not None:
        return solve_block
    from methods.kernels.columns import solve_block as solve_block_by_kernel

    return solve_block_by_kernel


@cache
def kernel_problem(device: torch.device) -> str | None:
    """Why a GPU is not served by the kernel; None where it is. Tried once, on a few weights.

    Triton asks for a C compiler, and for a GPU that is not too old.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    from methods.kernels.columns import solve_block as solve_block_by_kernel

    weight, factor = torch.ones(1, 4, device=device), torch.eye(4, device=device)
    keep = torch.ones_like(weight, dtype=torch.bool)
    try:
        solve_block_by_kernel(weight, keep, factor, SemiStructured(2, 4), 0, 4)
    except Exception as error:  # whatever a compiler throws: there is a twin, and the reason is recorded
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    return None


def solve_block(
    weight: Tensor, keep: Tensor, factor: Tensor, pattern: UniformPattern, start: int, end: int
) -> Tensor:
    """The walk through one block: spreads each column's error inside the block, and gives them all.

    Args:
        weight: `[out, in]`; the block's columns are updated in place, and pruned weights end as 0 or close
            to it.
        keep: bool `[out, in]`; the block's columns are given when unstructured, filled in for N:M.
        factor: U, `[in, in]`, upper triangular.
        pattern: what to remove.
        start: the block's first column.
        end: the column after its last one.

    Returns:
        The errors (w - q) / U_jj, `[out, end - start]`.
    """
    # Columns contiguous in memory: an update then goes through whole rows of the transposed block.
    weight_CO = weight[:, start:end].T.contiguous()
    keep_CO = keep[:, start:end].T.contiguous()
    errors_CO = torch.empty_like(weight_CO)
    u = factor[start:end, start:end]
    narrow = panel_width(pattern)
    for left in range(0, end - start, narrow):
        right = min(left + narrow, end - start)
        here = slice(left, right)
        _solve_panel(weight_CO[here], keep_CO[here], errors_CO[here], u[here, here], pattern)
        weight_CO[right:].addmm_(u[here, right:].T, errors_CO[here], alpha=-1)
    weight[:, start:end] = weight_CO.T
    keep[:, start:end] = keep_CO.T
    return errors_CO.T


def panel_width(pattern: UniformPattern) -> int:
    """Columns whose errors are spread one by one; beyond them a panel's errors go in one product."""
    return block_size(pattern, PANEL)


def _solve_panel(
    weight_CO: Tensor, keep_CO: Tensor, errors_CO: Tensor, u: Tensor, pattern: UniformPattern
) -> None:
    """The walk through a few columns, each of them contiguous in memory; all but `u` changes in place.

    Args:
        weight_CO: `[columns, out]`.
        keep_CO: bool `[columns, out]`; given when unstructured, filled in for N:M.
        errors_CO: `[columns, out]`, filled in.
        u: U `[columns, columns]` of these columns.
        pattern: what to remove.
    """
    n_columns = weight_CO.shape[0]
    span = pattern.m if isinstance(pattern, SemiStructured) else n_columns
    pivots = u.diagonal()[:, None]
    for start in range(0, n_columns, span):
        group = slice(start, start + span)
        pivot = pivots[group]
        if isinstance(pattern, SemiStructured):
            keep_CO[group] = _keep_n_of_m((weight_CO[group] / pivot).square_(), pattern)
        # A surviving weight makes no error: it is divided by infinity. A masked one becomes 0 by its update.
        divisors = torch.where(keep_CO[group], torch.inf, pivot)
        steps = zip(weight_CO[group].unbind(), divisors.unbind(), errors_CO[group].unbind(), strict=True)
        for column, (weight, divisor, error) in enumerate(steps, start):
            torch.div(weight, divisor, out=error)
            to_right = slice(column + 1, n_columns)
            weight_CO[to_right].addr_(u[column, to_right], error, alpha=-1)


def _keep_n_of_m(score_MO: Tensor, pattern: SemiStructured) -> Tensor:
    """What `prune_n_of_m` keeps, of one group of each row: scores `[M, out]` -> bool `[M, out]`."""
    m, n_rows = score_MO.shape
    if score_MO.device.type == "cpu" and m <= MAX_COUNTED_GROUP:
        # NumPy compares and counts in bytes, in a few microseconds; torch needs ten calls that take one each.
        scores = score_MO.numpy()
        n_lower = (scores[:, None] < scores).view(np.uint8).sum(0, dtype=np.uint8)
        keep = n_lower >= m - pattern.n
        # A tie across the border leaves too few; it is settled below.
        if np.count_nonzero(keep) == n_rows * pattern.n:
            return torch.from_numpy(keep)
    return prune_lowest(score_MO.T.contiguous(), m - pattern.n).T


__all__ = [
    "BlockSolver",
    "block_size",
    "block_solver",
    "kernel_problem",
    "panel_width",
    "solve_block",
    "solve_columns",
]
