"""Swaps of a pruned for a kept weight that reduce the layer's error (SparseSwaps, arXiv 2512.10922).

A masked row w has the error r G r^T on the calibration inputs, where r is the pruned part of w and G = X^T X.
If the kept weight u is pruned and the pruned weight p comes back, r changes by s_u e_u + s_p e_p, where s = w
for a kept weight and -w for a pruned one, and the error changes by

    g_u + g_p + 2 s_u s_p G_up,   g_j = s_j^2 G_jj + 2 s_j (G r)_j

This is exact, so that only swaps that reduce the error are made. No weights are changed, and no gradients are
computed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.engine.statistics import GramMatrix
from methods.engine.steps import UNREACHED, Problem, Refinement, Solution
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import require_finite

Search = Literal["alternating", "exact"]

HOST_CHUNK, ACCELERATOR_CHUNK = 2**17, 2**25
"""Number of weights whose rows are searched at once; on a CPU as many as fit into the caches."""


@dataclass(frozen=True)
class Swaps(Refinement):
    """Swaps pairs of weights in each row, as long as a swap reduces the row's error.

    Attributes:
        max_swaps: maximum number of swaps per row.
        search: how a row's next swap is found. `alternating`: the best weight to restore, the best one to
            prune given that, and the best one to restore given the latter; this takes a few passes over the
            row. `exact`: the best of all pairs, which is quadratic in the length of the row. With N:M a swap
            stays in a group of M, and both are exact.
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
        """One output row."""
        return (1, shape[1])

    def refine(self, problem: Problem, found: Solution) -> Solution:
        """See `Refinement.refine`; an expert that no token reached keeps its mask."""
        if problem.n_tokens == 0:
            return found.refined(found.keep, problem.target, UNREACHED)
        largest = problem.weight.square().amax(0) * problem.gram.diagonal()
        require_finite(largest, problem.name, "the errors that its weights make, alone,")
        m = problem.pattern.m if isinstance(problem.pattern, SemiStructured) else None
        keep = swap_rows(
            problem.weight, found.keep, problem.gram, max_swaps=self.max_swaps, m=m, search=self.search
        )
        return found.refined(keep, problem.target)


def swap_rows(
    weight: Tensor, keep: Tensor, gram: Tensor, *, max_swaps: int, m: int | None = None, search: Search
) -> Tensor:
    """Returns the keep-mask after the swaps of every row.

    Args:
        weight: dense weight, `[out, in]`.
        keep: bool `[out, in]`; not changed.
        gram: X^T X, `[in, in]`, in the dtype of `weight`.
        max_swaps: maximum number of swaps per row.
        m: M of an N:M pattern, within whose groups swaps stay; None for an unstructured one.
        search: see `Swaps`.

    Returns:
        bool `[out, in]`; every row (every group of M) keeps as many weights as before.
    """
    chunk = HOST_CHUNK if weight.device.type == "cpu" else ACCELERATOR_CHUNK
    n_rows = max(1, chunk // weight.shape[1])
    swapped = keep.clone()
    for start in range(0, len(weight), n_rows):
        rows = slice(start, start + n_rows)
        _swap_rows(weight[rows], swapped[rows], gram, max_swaps, m, search)
    return swapped


def _swap_rows(
    weight: Tensor, keep: Tensor, gram: Tensor, max_swaps: int, m: int | None, search: Search
) -> None:
    """Does the swaps of a few rows; changes `keep` in place."""
    rows = _Rows.of(weight, keep, gram)
    # Rows without further swaps are dropped only occasionally, because dropping them copies the others.
    active = torch.arange(len(weight), device=weight.device)
    for _ in range(max_swaps):
        if m is not None:
            leaver, newcomer, change = _best_in_groups(rows, gram, m)
        elif search == "exact":
            leaver, newcomer, change = _best_pair(rows, gram)
        else:
            leaver, newcomer, change = _alternating_pair(rows, gram)
        helps = change < 0
        n_helped = int(helps.sum())
        if not n_helped:
            break
        if n_helped < LEAVE_BELOW * len(helps):
            keep[active] = rows.keep
            active, rows = active[helps], rows.only(helps)
            leaver, newcomer, helps = leaver[helps], newcomer[helps], helps[helps]
        rows.swap(leaver, newcomer, helps, gram)
    keep[active] = rows.keep


LEAVE_BELOW = 0.75
"""Finished rows are dropped once less than this share of the active rows still finds a swap."""


@dataclass
class _Rows:
    """The state of rows between their swaps; all tensors are `[rows, in]`.

    Attributes:
        alone: s_j^2 G_jj.
        signed: s.
        error_gradient: G r.
        may_come: 0 for a pruned weight, infinite for a kept one. Adding this barrier is an order of magnitude
            faster than selecting by a mask.
        may_leave: 0 for a kept weight, infinite for a pruned one.
    """

    alone: Tensor
    signed: Tensor
    error_gradient: Tensor
    may_come: Tensor
    may_leave: Tensor

    @classmethod
    def of(cls, weight: Tensor, keep: Tensor, gram: Tensor) -> _Rows:
        """Creates the state before the first swap."""
        barrier = torch.zeros_like(weight)
        return cls(
            alone=weight.square().mul_(gram.diagonal()),
            signed=torch.where(keep, weight, -weight),
            error_gradient=weight.masked_fill(keep, 0) @ gram,
            may_come=barrier.masked_fill(keep, torch.inf),
            may_leave=barrier.masked_fill(~keep, torch.inf),
        )

    def only(self, chosen: Tensor) -> _Rows:
        """Returns the state of the chosen rows only."""
        return _Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def keep(self) -> Tensor:
        """The current mask, bool `[rows, in]`."""
        return self.may_leave == 0

    @property
    def gain(self) -> Tensor:
        """g: the change of the error if a single weight is pruned or restored."""
        return torch.addcmul(self.alone, self.signed, self.error_gradient, value=2)

    def swap(self, leaver: Tensor, newcomer: Tensor, helps: Tensor, gram: Tensor) -> None:
        """Makes the swap of each row for which `helps` is True."""
        for place, coming in ((leaver, False), (newcomer, True)):
            at, made = place[:, None], helps[:, None]
            moved = self.signed.gather(1, at) * made
            self.error_gradient.addcmul_(gram.index_select(0, place), moved)
            self.signed.scatter_add_(1, at, -2 * moved)
            for barrier, closed in ((self.may_come, coming), (self.may_leave, not coming)):
                after = torch.full_like(moved, torch.inf if closed else 0)
                barrier.scatter_(1, at, torch.where(made, after, barrier.gather(1, at)))


def _alternating_pair(rows: _Rows, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Searches a swap as `Swaps.search` describes; returns (leaver, newcomer, change), `[rows]` each."""
    gain = rows.gain
    coming, leaving = gain + rows.may_come, gain.add_(rows.may_leave)
    newcomer = _argmin(coming)
    leaver, left = _best_given(newcomer, coming, leaving, rows.signed, gram)
    newcomer, change = _best_given(leaver, leaving, coming, rows.signed, gram)
    # A row without kept weights has no leaver.
    return leaver, newcomer, torch.where(left.isfinite(), change, torch.inf)


def _best_given(
    given: Tensor, of_given: Tensor, candidates: Tensor, signed: Tensor, gram: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the best partner of the weight `given` among `candidates`, and the change of the error by both.

    Both results are `[rows]`.
    """
    at = given[:, None]
    cross = gram.index_select(0, given).mul_(2 * signed.gather(1, at))
    both = torch.addcmul(candidates, cross, signed)
    partner = _argmin(both)
    return partner, both.gather(1, partner[:, None])[:, 0] + of_given.gather(1, at)[:, 0]


def _argmin(values: Tensor) -> Tensor:
    """Returns the position of the lowest value in each row of `[rows, n]`, int64 `[rows]`."""
    if values.device.type == "cpu":
        # NumPy's argmin is vectorized: an order of magnitude faster than torch's.
        return torch.from_numpy(values.numpy().argmin(1))
    return values.argmin(1)


def _best_pair(rows: _Rows, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the best of all pairs of each row: (leaver, newcomer, change), `[rows]` each."""
    found = [_best_pair_of_row(*row, gram) for row in zip(rows.gain, rows.signed, rows.keep, strict=True)]
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


def _best_in_groups(rows: _Rows, gram: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the best pair within any group of M: (leaver, newcomer, change), `[rows]` each."""
    gain = rows.gain
    n_rows, inputs = gain.shape
    n_groups = inputs // m

    def by_place(values: Tensor) -> Tensor:
        """Rearranges `[rows, in]` to `[rows, M, groups]`; groups last, so that they are contiguous."""
        return values.reshape(n_rows, n_groups, m).transpose(1, 2).contiguous()

    inside = torch.arange(inputs, device=gain.device).reshape(n_groups, m).T
    signed = by_place(rows.signed)
    coming, leaving = by_place(gain + rows.may_come), by_place(gain.add_(rows.may_leave))
    best, pairs = [], []
    for leaver in range(m):
        cross = gram[inside[leaver], inside] * (2 * signed[:, leaver, None])
        both = torch.addcmul(coming, cross, signed).add_(leaving[:, leaver, None]).flatten(1)
        place = _argmin(both)
        best.append(both.gather(1, place[:, None])[:, 0])
        group, newcomer = place % n_groups, place // n_groups
        pairs.append(torch.stack([group * m + leaver, group * m + newcomer]))
    change, which = torch.stack(best).min(0)
    chosen = torch.stack(pairs)[which, :, torch.arange(n_rows, device=gain.device)]
    return chosen[:, 0], chosen[:, 1], change


__all__ = ["Swaps", "swap_rows"]
