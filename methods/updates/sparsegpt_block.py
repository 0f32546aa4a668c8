"""SparseGPT's pass through one block of columns, in plain torch; `sparsegpt_kernel` does the same on GPUs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import prune_lowest

PANEL = 32
"""Number of columns of a panel, a part of a block; it affects only the order of sums."""


MAX_COUNTED_GROUP = 16
"""The largest M for which ranks are counted by comparing all pairs, which takes M * M * out bytes."""


def block_size(pattern: UniformPattern | None, wanted: int) -> int:
    """Returns `wanted`, or for N:M the largest multiple of M that is not larger (but at least M)."""
    if isinstance(pattern, SemiStructured):
        return max(pattern.m, wanted // pattern.m * pattern.m)
    return wanted


def solve_block(
    weight: Tensor, keep: Tensor, factor: Tensor, pattern: UniformPattern | None, start: int, end: int
) -> Tensor:
    """Goes through the columns of one block, spreads each column's error within the block, and returns them.

    Args:
        weight: `[out, in]`; the block's columns are updated in place, and pruned weights become 0 or nearly
            0.
        keep: bool `[out, in]`; the block's columns are an output for N:M, and an input otherwise.
        factor: U, `[in, in]`, upper triangular.
        pattern: what to remove; None if the mask is given.
        start: the block's first column.
        end: the column after its last one.

    Returns:
        The errors (w - q) / U_jj, `[out, end - start]`.
    """
    # Transposed, so that columns are contiguous and an update works on whole rows.
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


def panel_width(pattern: UniformPattern | None) -> int:
    """Returns the number of columns of a panel.

    Errors are spread column by column within a panel, and by one matrix product to later panels.
    """
    return block_size(pattern, PANEL)


def _solve_panel(
    weight_CO: Tensor, keep_CO: Tensor, errors_CO: Tensor, u: Tensor, pattern: UniformPattern | None
) -> None:
    """Goes through the columns of one panel; changes all tensors but `u` in place.

    Args:
        weight_CO: `[columns, out]`.
        keep_CO: bool `[columns, out]`; an output for N:M, and an input otherwise.
        errors_CO: `[columns, out]`; an output.
        u: U `[columns, columns]` of these columns.
        pattern: what to remove; None if the mask is given.
    """
    n_columns = weight_CO.shape[0]
    span = pattern.m if isinstance(pattern, SemiStructured) else n_columns
    pivots = u.diagonal()[:, None]
    for start in range(0, n_columns, span):
        group = slice(start, start + span)
        pivot = pivots[group]
        if isinstance(pattern, SemiStructured):
            keep_CO[group] = _keep_n_of_m((weight_CO[group] / pivot).square_(), pattern)
        # Dividing by infinity makes the error of a surviving weight 0. Its update sets a pruned weight to 0.
        divisors = torch.where(keep_CO[group], torch.inf, pivot)
        steps = zip(weight_CO[group].unbind(), divisors.unbind(), errors_CO[group].unbind(), strict=True)
        for column, (weight, divisor, error) in enumerate(steps, start):
            torch.div(weight, divisor, out=error)
            to_right = slice(column + 1, n_columns)
            weight_CO[to_right].addr_(u[column, to_right], error, alpha=-1)


def _keep_n_of_m(score_MO: Tensor, pattern: SemiStructured) -> Tensor:
    """Does what `prune_n_of_m` does for one group of each row: scores `[M, out]` -> bool `[M, out]`."""
    m, n_rows = score_MO.shape
    if score_MO.device.type == "cpu" and m <= MAX_COUNTED_GROUP:
        # NumPy compares and counts bytes in a few microseconds; torch needs ten calls of a microsecond each.
        scores = score_MO.numpy()
        n_lower = (scores[:, None] < scores).view(np.uint8).sum(0, dtype=np.uint8)
        keep = n_lower >= m - pattern.n
        # If a tie crosses the threshold, the count is wrong; `prune_lowest` resolves ties below.
        if np.count_nonzero(keep) == n_rows * pattern.n:
            return torch.from_numpy(keep)
    return prune_lowest(score_MO.T.contiguous(), m - pattern.n).T


__all__ = ["block_size", "panel_width", "solve_block"]
