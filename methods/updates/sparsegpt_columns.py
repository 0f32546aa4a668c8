"""SparseGPT's walk through the columns of a weight: pure tensor functions (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest
from methods.updates.sparsegpt_block import solve_block

BlockSolver = Callable[[Tensor, Tensor, Tensor, UniformPattern, int, int], Tensor]
"""`solve_block`, or the kernel that does the same on a GPU."""


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
    from methods.updates.sparsegpt_kernel import solve_block as solve_block_by_kernel

    return solve_block_by_kernel


@cache
def kernel_problem(device: torch.device) -> str | None:
    """Why a GPU is not served by the kernel; None where it is. Tried once, on a few weights.

    Triton asks for a C compiler, and for a GPU that is not too old.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    from methods.updates.sparsegpt_kernel import solve_block as solve_block_by_kernel

    weight, factor = torch.ones(1, 4, device=device), torch.eye(4, device=device)
    keep = torch.ones_like(weight, dtype=torch.bool)
    try:
        solve_block_by_kernel(weight, keep, factor, SemiStructured(2, 4), 0, 4)
    except Exception as error:  # whatever a compiler throws: there is a twin, and the reason is recorded
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    return None


__all__ = [
    "BlockSolver",
    "block_solver",
    "kernel_problem",
    "solve_columns",
]
