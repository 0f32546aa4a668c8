"""Swapping pruned for kept weights inside comparison groups: pure tensor functions (arXiv 2408.10631)."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Granularity = Literal["layer", "output", "input", "block"]


def rebuild(keep: Tensor, scores: Tensor, granularity: Granularity, ratio: float) -> Tensor:
    """The keep-mask after the most profitable swaps of each comparison group.

    In a group, the pruned scores G are sorted descending and the kept ones Q ascending; r counts the k with
    G_k > Q_k; the first floor(r * ratio) pairs are swapped. Every group keeps as many weights as before.

    Args:
        keep: bool `[out, in]` (or flat, with `layer`).
        scores: fp32 of the same shape, finite and not negative.
        granularity: `output` compares within rows, `input` within columns, `layer` everywhere; a `block` is
            the caller's to lay out flat.
        ratio: share of profitable swaps made, in [0, 1].

    Returns:
        bool of the same shape.
    """
    if granularity == "output":
        return _rebuild_rows(keep, scores, ratio)
    if granularity == "input":
        return _rebuild_rows(keep.T.contiguous(), scores.T.contiguous(), ratio).T.contiguous()
    return _rebuild_rows(keep.reshape(1, -1), scores.reshape(1, -1), ratio).reshape(keep.shape)


def rebuild_n_of_m(keep: Tensor, scores: Tensor, m: int, ratio: float, *, guard: bool) -> Tensor:
    """The keep-mask of an N:M pattern after a rebuild by rows that leaves every group of M at N survivors.

    The row says which pruned weights would come back; in each group the highest newcomer meets the lowest
    kept weight, pair by pair, as long as both last.

    Args:
        keep: bool `[out, in]`, N survivors in each M consecutive inputs.
        scores: fp32 `[out, in]`, finite and not negative.
        m: M.
        ratio: share of a row's profitable swaps made, in [0, 1].
        guard: a newcomer evicts only a weight that scores lower.

    Returns:
        bool `[out, in]`.
    """
    rows, inputs = keep.shape
    swaps = _ranked_swaps(keep, scores, ratio)
    newcomers = torch.zeros_like(keep)
    newcomers.scatter_(1, swaps.pruned, _first(swaps.n_swaps, inputs))
    shape = (rows, inputs // m, m)
    score_RGM, keep_RGM, new_RGM = scores.reshape(shape), keep.reshape(shape), newcomers.reshape(shape)
    coming, coming_at = score_RGM.masked_fill(~new_RGM, -torch.inf).sort(dim=-1, descending=True, stable=True)
    going, going_at = score_RGM.masked_fill(~keep_RGM, torch.inf).sort(dim=-1, stable=True)
    meets = coming.isfinite() & going.isfinite()
    if guard:
        meets &= coming > going
    rebuilt = keep_RGM.clone()
    # Reading the present value back where no swap happens leaves those positions as they are.
    rebuilt.scatter_(-1, coming_at, keep_RGM.gather(-1, coming_at) | meets)
    rebuilt.scatter_(-1, going_at, rebuilt.gather(-1, going_at) & ~meets)
    return rebuilt.reshape(rows, inputs)


class _Swaps(NamedTuple):
    """Who would swap with whom in each row.

    Attributes:
        pruned: positions, those that come back first leading, `[rows, n]`.
        kept: positions, those that go first leading, `[rows, n]`.
        n_swaps: how many of the leading pairs swap, `[rows, 1]`.
    """

    pruned: Tensor
    kept: Tensor
    n_swaps: Tensor


def _ranked_swaps(keep: Tensor, scores: Tensor, ratio: float) -> _Swaps:
    # Pruned first in the one and kept first in the other: the fill values pair with nothing.
    pruned, pruned_at = scores.masked_fill(keep, -torch.inf).sort(dim=-1, descending=True, stable=True)
    kept, kept_at = scores.masked_fill(~keep, torch.inf).sort(dim=-1, stable=True)
    profitable = (pruned > kept).sum(-1, keepdim=True)
    return _Swaps(pruned_at, kept_at, floor_share(profitable, ratio))


def floor_share(counts: Tensor, ratio: float) -> Tensor:
    """floor(count * ratio) with the ratio taken as the decimal it is written as (0.1 of 30 is 3)."""
    exact = Fraction(repr(ratio))
    different, place = torch.unique(counts, return_inverse=True)
    # In whole numbers of any size: numerator times count need not fit into 64 bits.
    shares = [count * exact.numerator // exact.denominator for count in different.tolist()]
    return torch.tensor(shares, dtype=counts.dtype, device=counts.device)[place]


def _first(n: Tensor, width: int) -> Tensor:
    """bool `[rows, width]`, True in the first n of each row."""
    return torch.arange(width, device=n.device) < n


def _rebuild_rows(keep: Tensor, scores: Tensor, ratio: float) -> Tensor:
    swaps = _ranked_swaps(keep, scores, ratio)
    swapped = _first(swaps.n_swaps, keep.shape[1])
    coming = torch.zeros_like(keep).scatter_(1, swaps.pruned, swapped)
    going = torch.zeros_like(keep).scatter_(1, swaps.kept, swapped)
    return (keep | coming) & ~going


__all__ = ["Granularity", "floor_share", "rebuild", "rebuild_n_of_m"]
