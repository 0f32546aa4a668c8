"""The exact selection of what a pattern removes: pure functions of tensors.

"Exact" means two things: a group of n loses floor(n * s) weights with the product taken as an exact fraction
(0.29 of 100 is 29), and of equal scores the one with the lower flat index goes first.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.errors import NonFiniteError
from methods.masks.pattern import SemiStructured

LONGEST_SORTED = 2**26
"""The longest row that is sorted on a GPU: sorting takes some 30 bytes a score for the while."""


def prune_lowest(scores: Tensor, k: int) -> Tensor:
    """Keep-mask that drops the k lowest scores of each row.

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
    """The k-th lowest score of each row of `[groups, n]`, `[groups, 1]`; k counts from 1."""
    if scores.device.type == "cpu":
        # NumPy's selection is vectorized and leaves positions out: several times quicker than torch's here.
        return torch.from_numpy(np.partition(scores.numpy(), k - 1, axis=-1)[:, k - 1 : k])
    return kth_lowest_in_parallel(scores, k)


def kth_lowest_in_parallel(scores: Tensor, k: int) -> Tensor:
    """`kth_lowest` by what keeps a GPU busy, and does not make the host wait."""
    if scores.shape[0] == 1 and scores.shape[1] <= LONGEST_SORTED:
        # `kthvalue` leaves a row to one thread block, which reads it 17 times; all of the GPU sorts it.
        return scores.sort(dim=-1).values[:, k - 1 : k]
    return torch.kthvalue(scores, k, dim=-1, keepdim=True).values


def up_to(scores: Tensor, threshold: Tensor, k: int | Tensor) -> Tensor:
    """The k lowest scores of each row, given the k-th lowest; of equal ones those with the lower index.

    Args:
        scores: `[groups, n]`, no NaN.
        threshold: `[groups, 1]`, the k-th lowest of each row (anything below all scores where k is 0).
        k: how many, for all rows or `[groups, 1]`.

    Returns:
        bool `[groups, n]`.
    """
    below, tied = scores < threshold, scores == threshold
    n_from_tied = k - count_true(below)
    # Elsewhere than on the CPU the rule is applied unasked: it changes nothing where no tie is cut, and the
    # answer would have to be waited for.
    if scores.device.type != "cpu" or bool((count_true(tied) > n_from_tied).any()):
        tied &= tied.cumsum(-1, dtype=torch.int32) <= n_from_tied
    return below | tied


def count_true(flags: Tensor) -> Tensor:
    """How many of each row of a bool `[rows, n]` are true, int64 `[rows, 1]`."""
    if flags.device.type == "cpu":
        # torch would first make integers of all of them, which takes eight times the room, and longer.
        return torch.from_numpy(np.count_nonzero(flags.numpy(), axis=-1, keepdims=True))
    return flags.sum(-1, keepdim=True)


def prune_n_of_m(scores: Tensor, pattern: SemiStructured) -> Tensor:
    """Keep-mask of the N highest scores in each M consecutive inputs.

    A weight's rank is counted by comparing it with each of its M - 1 neighbours: whole-tensor operations, no
    sort.

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
            # Of a tie the earlier one goes first, so it ranks lower.
            earlier_is_higher = group[earlier] > group[later]
            rank[earlier] += earlier_is_higher
            rank[later] += ~earlier_is_higher
    return torch.stack([r >= n_pruned for r in rank], dim=-1).reshape(rows, inputs)


def require_finite(values: Tensor, module: str, what: str) -> None:
    """Raises `NonFiniteError` naming `module` if any of `values` is NaN or infinite; `what` they are."""
    # One pass and no mask: NaN spreads to both ends, an infinity is one of them.
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
