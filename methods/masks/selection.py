"""Exact selection of the weights that a pattern removes: pure functions of tensors.

"Exact" means two things: a group of n loses floor(n * s) weights, where the product is an exact fraction
(0.29 of 100 is 29); and of equal scores the one with the lower flat index is removed first.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.errors import NonFiniteError
from methods.masks.pattern import SemiStructured

LONGEST_SORTED = 2**26
"""The longest row that is sorted on a GPU: sorting temporarily takes about 30 bytes per score."""


def prune_lowest(scores: Tensor, k: int) -> Tensor:
    """Returns a keep-mask that drops the k lowest scores of each row.

    Args:
        scores: `[groups, n]`, no NaN.
        k: how many to drop from each group, 0 <= k <= n.

    Returns:
        bool `[groups, n]`, True = survives.
    """
    if k == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    return ~up_to(scores, kth_lowest(scores, k), k)


def kth_lowest(scores: Tensor, k: int) -> Tensor:
    """Returns the k-th lowest score of each row of `[groups, n]`, as `[groups, 1]`; k counts from 1."""
    if scores.device.type == "cpu":
        # NumPy's selection is vectorized and returns no positions: several times as fast as torch's.
        return torch.from_numpy(np.partition(scores.numpy(), k - 1, axis=-1)[:, k - 1 : k])
    return kth_lowest_in_parallel(scores, k)


def kth_lowest_in_parallel(scores: Tensor, k: int) -> Tensor:
    """Computes `kth_lowest` with operations that use the whole GPU and do not make the host wait."""
    if scores.shape[0] == 1 and scores.shape[1] <= LONGEST_SORTED:
        # `kthvalue` uses one thread block per row, which reads it 17 times; sorting uses the whole GPU.
        return scores.sort(dim=-1).values[:, k - 1 : k]
    return torch.kthvalue(scores, k, dim=-1, keepdim=True).values


def up_to(scores: Tensor, threshold: Tensor, k: int | Tensor) -> Tensor:
    """Marks the k lowest scores of each row, given the k-th lowest; of equal ones those with lower indices.

    Args:
        scores: `[groups, n]`, no NaN.
        threshold: `[groups, 1]`, the k-th lowest of each row (anything below all scores if k is 0).
        k: the number of scores to mark, one for all rows or `[groups, 1]`.

    Returns:
        bool `[groups, n]`.
    """
    below, tied = scores < threshold, scores == threshold
    n_from_tied = k - count_true(below)
    # On a GPU ties are always resolved: this changes nothing if no tie is cut, and checking for one would
    # make the host wait.
    if scores.device.type != "cpu" or bool((count_true(tied) > n_from_tied).any()):
        tied &= tied.cumsum(-1, dtype=torch.int32) <= n_from_tied
    return below | tied


def count_true(flags: Tensor) -> Tensor:
    """Counts the true values in each row of a bool `[rows, n]`: int64 `[rows, 1]`."""
    if flags.device.type == "cpu":
        # torch would first convert all of them to integers, which takes eight times the memory, and longer.
        return torch.from_numpy(np.count_nonzero(flags.numpy(), axis=-1, keepdims=True))
    return flags.sum(-1, keepdim=True)


def prune_n_of_m(scores: Tensor, pattern: SemiStructured) -> Tensor:
    """Returns a keep-mask of the N highest scores of every M consecutive inputs.

    A weight's rank is counted by comparing it with each of the other M - 1 weights of its group, in
    whole-tensor operations without sorting.

    Args:
        scores: `[out, in]`, finite, `in` a multiple of M.
        pattern: N and M.

    Returns:
        bool `[out, in]`, True = survives.
    """
    rows, inputs = scores.shape
    group = scores.reshape(rows, inputs // pattern.m, pattern.m).unbind(-1)
    n_pruned = pattern.m - pattern.n
    counter = torch.uint8 if pattern.m <= 256 else torch.int32
    rank = [torch.zeros_like(group[0], dtype=counter) for _ in group]
    for later in range(1, pattern.m):
        for earlier in range(later):
            # In a tie the earlier one is removed first, so it ranks lower.
            earlier_is_higher = group[earlier] > group[later]
            rank[earlier] += earlier_is_higher
            rank[later] += ~earlier_is_higher
    return torch.stack([r >= n_pruned for r in rank], dim=-1).reshape(rows, inputs)


def require_finite(values: Tensor, module: str, what: str) -> None:
    """Raises `NonFiniteError` naming `module` if any of `values` is NaN or infinite.

    `what` describes the values in the message.
    """
    # One pass without a mask: NaN spreads to minimum and maximum, and infinity is one of them.
    lowest, highest = torch.aminmax(values)
    if not bool(torch.isfinite(lowest) & torch.isfinite(highest)):
        raise NonFiniteError(f"{module}: {what} hold NaN or infinite values")


__all__ = [
    "count_true",
    "kth_lowest",
    "kth_lowest_in_parallel",
    "prune_lowest",
    "prune_n_of_m",
    "require_finite",
    "up_to",
]
