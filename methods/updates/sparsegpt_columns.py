"""SparseGPT's pass through a weight's columns, with a given mask or with its own (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from methods.engine.statistics import GramMatrix
from methods.engine.steps import Problem, Solution, Update
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest, require_finite
from methods.updates.inverse_factor import InverseFactor
from methods.updates.sparsegpt_block import solve_block

BlockSolver = Callable[[Tensor, Tensor, Tensor, UniformPattern | None, int, int], Tensor]
"""`solve_block`, or the kernel that does the same on a GPU."""


@dataclass(frozen=True)
class SparseGPTUpdate(Update):
    """SparseGPT with a given mask: spreads the error of each removed weight to the columns on its right.

    Attributes:
        damping: damping added to the Hessian's diagonal, relative to its mean.
        block_size: number of columns whose errors are spread together; it affects only the order of sums.
    """

    damping: float = 0.01
    block_size: int = 128

    name: ClassVar[str] = "sparsegpt-update"
    version: ClassVar[int] = 1
    statistics = (GramMatrix,)
    solver_bytes: ClassVar[int] = 12

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise InputError(f"step 'sparsegpt-update': damping must be above 0, not {self.damping}")
        if self.block_size < 1:
            raise InputError(f"step 'sparsegpt-update': block_size must be at least 1, not {self.block_size}")

    def update(self, problem: Problem, found: Solution) -> Solution:
        """See `Update.update`; the weights of inputs that were never active are set to 0."""
        factor = InverseFactor.of(problem, self.damping)
        weight = problem.weight.masked_fill(factor.dead, 0)
        _, solved = solve_columns(weight, factor.upper, None, self.block_size, keep=found.keep)
        warnings = (*factor.zeroed, *factor.raised(self.damping), *kernel_warnings(weight))
        return replace(found, weight=solved, damping=factor.damping, weight_warnings=warnings)


def solve_columns(
    weight: Tensor, factor: Tensor, pattern: UniformPattern | None, width: int, keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Goes through the columns from left to right, masks them, and spreads each error to the right.

    Unstructured: in each block of columns the lowest W^2 / U_jj^2 over all rows are masked at once, using the
    weights as updated so far. N:M: each group is chosen per row when the pass reaches it.

    Args:
        weight: `[out, in]`; not changed.
        factor: U, `[in, in]`, upper triangular.
        pattern: what to remove; None if the mask is given.
        width: columns per block; for N:M a multiple of M.
        keep: bool `[out, in]`, the given mask; None = choose one.

    Returns:
        keep bool `[out, in]` and the new weight `[out, in]`, zero where pruned.
    """
    # The pass reads U by rows, but factorizations return it in column-major order.
    factor = factor.contiguous()
    weight = weight.clone(memory_format=torch.contiguous_format)
    keep = torch.ones_like(weight, dtype=torch.bool) if keep is None else keep.clone()
    n_inputs = weight.shape[1]
    solve = block_solver(weight)
    for start in range(0, n_inputs, width):
        end = min(start + width, n_inputs)
        if pattern is not None and not isinstance(pattern, SemiStructured):
            block = weight[:, start:end]
            scores = (block / factor.diagonal()[start:end]).square_().reshape(1, -1)
            lowest_go = prune_lowest(scores, pattern.n_pruned(block.numel()))
            keep[:, start:end] = lowest_go.reshape(block.shape)
        errors = solve(weight, keep, factor, pattern, start, end)
        weight[:, end:].addmm_(errors, factor[start:end, end:], alpha=-1)
    return keep, weight.masked_fill_(~keep, 0)


def require_finite_scores(name: str, weight: Tensor, upper: Tensor) -> None:
    """Raises `NonFiniteError` if the score W^2 / U_jj^2 of any surviving weight is NaN or infinite.

    Checking survivors is enough: a pruned weight scores no higher, and NaN spreads to all later columns of
    its row. This takes one pass over the weight; checking the scores would make the GPU wait at every block.
    """
    lowest, highest = torch.aminmax(weight, dim=0)
    largest = torch.maximum(lowest.neg(), highest)
    require_finite((largest / upper.diagonal()).square_(), name, "its SparseGPT scores")


def kernel_warnings(weight: Tensor) -> tuple[str, ...]:
    """Returns a warning with the reason if a weight on a GPU was solved without the kernel."""
    if weight.is_cuda and (problem := kernel_problem(weight.device)):
        return (f"solved without the GPU kernel, which is slow: {problem}",)
    return ()


def block_solver(weight: Tensor) -> BlockSolver:
    """Returns the kernel if `weight` is fp32 on a supported GPU, else the plain `solve_block`."""
    if not weight.is_cuda or weight.dtype != torch.float32 or kernel_problem(weight.device) is not None:
        return solve_block
    from methods.updates.sparsegpt_kernel import solve_block as solve_block_by_kernel

    return solve_block_by_kernel


@cache
def kernel_problem(device: torch.device) -> str | None:
    """Returns why the kernel does not work on a GPU; None if it does. Tried once, on a few weights.

    Triton requires a C compiler, and a GPU that is not too old.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    from methods.updates.sparsegpt_kernel import solve_block as solve_block_by_kernel

    weight, factor = torch.ones(1, 4, device=device), torch.eye(4, device=device)
    keep = torch.ones_like(weight, dtype=torch.bool)
    try:
        solve_block_by_kernel(weight, keep, factor, SemiStructured(2, 4), 0, 4)
    except Exception as error:  # a compiler may raise anything; the plain solver is used, the reason recorded
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    return None


__all__ = [
    "BlockSolver",
    "SparseGPTUpdate",
    "block_solver",
    "kernel_problem",
    "kernel_warnings",
    "require_finite_scores",
    "solve_columns",
]
