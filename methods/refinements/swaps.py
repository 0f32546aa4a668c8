"""Swaps of one pruned for one kept weight under the layer's own error (SparseSwaps, arXiv 2512.10922).

A row w with mask errs by r G r^T on the calibration inputs, with r the pruned part of w and G = X^T X. If u
leaves the mask and p comes back, r changes by s_u e_u + s_p e_p with s = w where a weight is kept and -w
where it is pruned, and the error by

    g_u + g_p + 2 s_u s_p G_up,   g_j = s_j^2 G_jj + 2 s_j (G r)_j

which is exact, so that a swap is made only if it helps. No weight is changed, and no gradient is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.engine.statistics import GramMatrix
from methods.engine.steps import UNREACHED, Problem, Refinement, Solution
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import require_finite

Search = Literal["alternating", "exact"]

CHUNK_ELEMENTS = {"cpu": 2**17, "cuda": 2**25}
"""Weights whose rows are searched at once: on a CPU as many as caches hold."""


@dataclass(frozen=True)
class Swaps(Refinement):
    """Swaps weights one for one in each row, as long as a swap makes the row's error smaller.

    Attributes:
        max_swaps: that a row makes at most.
        search: how a row's next swap is found. `alternating`: the best newcomer, the best leaver given it,
            the best newcomer given that, which costs a few passes over the row. `exact`: the best of all
            pairs, which costs a row times a row. Under N:M a swap stays in a group of M, and both are exact.
    """

    max_swaps: int = 100
    search: Search = "alternating"

    name: ClassVar[str] = "swaps"
    version: ClassVar[int] = 1
    statistics = (GramMatrix,)

    def __post_init__(self) -> None:
        if self.max_swaps < 1:
            raise InputError(f"step 'swaps': max_swaps must be at least 1, not {self.max_swaps}")

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """An output row."""
        return (1, shape[1])

    def refine(self, problem: Problem, found: Solution) -> Solution:
        """See `Refinement.refine`; an expert that no token reached keeps its mask."""
        if problem.n_tokens == 0:
            return found.refined(found.keep, problem.target, UNREACHED)
        m = problem.pattern.m if isinstance(problem.pattern, SemiStructured) else None
        keep = swap_rows(
            problem.weight, found.keep, problem.gram, max_swaps=self.max_swaps, m=m, search=self.search
        )
        require_finite(
            problem.gram.diagonal() * problem.weight.square().amax(0), problem.name, "its swaps' errors"
        )
        return found.refined(keep, problem.target)


def swap_rows(
    weight: Tensor, keep: Tensor, gram: Tensor, *, max_swaps: int, m: int | None = None, search: Search
) -> Tensor:
    """The keep-mask after the swaps of every row.

    Args:
        weight: dense, `[out, in]`.
        keep: bool `[out, in]`; not changed.
        gram: X^T X, `[in, in]`, in the type of `weight`.
        max_swaps: that a row makes at most.
        m: M of an N:M pattern, inside whose groups swaps stay.
        search: see `Swaps`.

    Returns:
        bool `[out, in]`; every row (every group of M) keeps as many weights as before.
    """
    n_rows = max(1, CHUNK_ELEMENTS.get(weight.device.type, 2**17) // weight.shape[1])
    swapped = keep.clone()
    for start in range(0, len(weight), n_rows):
        rows = slice(start, start + n_rows)
        _swap_rows(weight[rows], swapped[rows], gram, max_swaps, m, search)
    return swapped


def _swap_rows(
    weight: Tensor, keep: Tensor, gram: Tensor, max_swaps: int, m: int | None, search: Search
) -> None:
    """`swap_rows` of a few rows, in place."""
    signed = torch.where(keep, weight, -weight)
    error_gradient = weight.masked_fill(keep, 0) @ gram
    alone = weight.square().mul_(gram.diagonal())
    going = keep.clone()
    # The rows that still find a swap; what is done is left behind now and then, which costs a copy.
    active = torch.arange(len(weight), device=weight.device)
    for _ in range(max_swaps):
        gain = torch.addcmul(alone, signed, error_gradient, value=2)
        if m is not None:
            leaver, newcomer, change = _best_in_groups(gain, signed, going, gram, m)
        elif search == "exact":
            leaver, newcomer, change = _best_pair(gain, signed, going, gram)
        else:
            leaver, newcomer, change = _alternating_pair(gain, signed, going, gram)
        helps = change < 0
        n_helped = int(helps.sum())
        if not n_helped:
            break
        if n_helped < LEAVE_BELOW * len(helps):
            keep[active] = going
            active, going, signed = active[helps], going[helps], signed[helps]
            error_gradient, alone = error_gradient[helps], alone[helps]
            leaver, newcomer, helps = leaver[helps], newcomer[helps], helps[helps]
        for place, kept in ((leaver, False), (newcomer, True)):
            at = place[:, None]
            moved = signed.gather(1, at) * helps[:, None]
            error_gradient.addcmul_(gram[place], moved)
            going.scatter_(1, at, torch.where(helps[:, None], kept, going.gather(1, at)))
            signed.scatter_add_(1, at, -2 * moved)
    keep[active] = going


LEAVE_BELOW = 0.75
"""Rows are left behind once fewer than so many of those that are looked at still find a swap."""


def _alternating_pair(
    gain: Tensor, signed: Tensor, keep: Tensor, gram: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Best newcomer, best leaver given it, best newcomer given that: (leaver, newcomer, change), `[rows]`."""
    newcomer = gain.masked_fill(keep, torch.inf).argmin(1)
    leaver, so_far = _best_given(newcomer, gain, signed, ~keep, gram)
    newcomer, change = _best_given(leaver, gain, signed, keep, gram)
    # In a row that keeps nothing there is no leaver.
    return leaver, newcomer, torch.where(so_far.isposinf(), so_far, change)


def _best_given(
    given: Tensor, gain: Tensor, signed: Tensor, excluded: Tensor, gram: Tensor
) -> tuple[Tensor, Tensor]:
    """The best partner of a weight that changes sides, and what the error changes by, `[rows]` each."""
    at = given[:, None]
    both = torch.addcmul(gain, gram[given].mul_(2 * signed.gather(1, at)), signed)
    change, partner = both.masked_fill_(excluded, torch.inf).min(1)
    return partner, change + gain.gather(1, at)[:, 0]


def _best_pair(gain: Tensor, signed: Tensor, keep: Tensor, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best of all pairs, row by row: (leaver, newcomer, change), `[rows]` each."""
    found = [_best_pair_of_row(*row, gram) for row in zip(gain, signed, keep, strict=True)]
    leaver, newcomer, change = (torch.stack(column) for column in zip(*found, strict=True))
    return leaver, newcomer, change


def _best_pair_of_row(
    gain: Tensor, signed: Tensor, keep: Tensor, gram: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    kept, pruned = keep.nonzero()[:, 0], (~keep).nonzero()[:, 0]
    if not len(kept) or not len(pruned):
        nobody = kept.new_zeros(())
        return nobody, nobody, gain.new_full((), torch.inf)
    both = gram[kept][:, pruned] * (2 * torch.outer(signed[kept], signed[pruned]))
    both += gain[kept][:, None] + gain[pruned]
    change, best = both.flatten().min(0)
    return kept[best // len(pruned)], pruned[best % len(pruned)], change


def _best_in_groups(
    gain: Tensor, signed: Tensor, keep: Tensor, gram: Tensor, m: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best pair inside any group of M: (leaver, newcomer, change), `[rows]` each."""
    rows, inputs = gain.shape
    shape = (rows, inputs // m, m)
    groups = torch.arange(inputs, device=gain.device).reshape(-1, m)
    gram_GMM = gram[groups[:, :, None], groups[:, None, :]]
    signed_RGM = signed.reshape(shape)
    # A weight that may not change to this side costs infinitely much.
    leaving = gain.masked_fill(~keep, torch.inf).reshape(shape)
    coming = gain.masked_fill(keep, torch.inf).reshape(shape)
    best = torch.full((rows, inputs // m), torch.inf, dtype=gain.dtype, device=gain.device)
    pair = torch.zeros((rows, inputs // m), dtype=torch.int64, device=gain.device)
    for leaver in range(m):
        cross = gram_GMM[:, leaver] * (signed_RGM * signed_RGM[..., leaver, None])
        both = coming + leaving[..., leaver, None] + 2 * cross
        change, newcomer = both.min(-1)
        better = change < best
        best = torch.where(better, change, best)
        pair = torch.where(better, leaver * m + newcomer, pair)
    change, group = best.min(1)
    chosen = pair.gather(1, group[:, None])[:, 0]
    return group * m + chosen // m, group * m + chosen % m, change


__all__ = ["Swaps", "swap_rows"]
