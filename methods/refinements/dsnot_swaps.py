"""DSnoT's swaps of pruned for kept weights, to correct a row's expected output (arXiv 2310.08915)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from methods.engine.steps import UNREACHED, Problem, Refinement, Solution, dead_inputs
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import kth_lowest, require_finite, up_to
from methods.scores.wanda import wanda_scores
from methods.structure.target import Target

MAX_VARIANCE_POWER = 6
"""Up to this power, quotients of fp32 numbers stay in the range of fp64."""

NOBODY = -1
"""Marks the end of a queue of weight positions."""


class InputMoments:
    """Sum, sum of squares and variance of each input over all tokens, `[in]` each, in fp32.

    Attributes:
        total: sum_t X_tj.
        squares: sum_t X_tj^2.
    """

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self.total = torch.zeros(n_inputs, dtype=torch.float32, device=device)
        self.squares = torch.zeros_like(self.total)
        self._spread = torch.zeros_like(self.total)
        self._n_tokens = 0

    @classmethod
    def of(cls, target: Target) -> Self:
        """Creates an empty statistic for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Adds N tokens; N may be 0."""
        n_new, n_old = len(x_NI), self._n_tokens
        if n_new == 0:
            return
        x = x_NI.float()
        total = x.sum(0)
        # Sum the squares around each batch's mean, then correct for the distance of the means. The formula
        # sum X^2 - (sum X)^2 / N would lose all digits of a variance that is small compared with the mean.
        self._spread += (x - total / n_new).square().sum(0)
        if n_old:
            apart = total / n_new - self.total / n_old
            self._spread += apart.square() * (n_old * n_new / (n_old + n_new))
        self.total += total
        self.squares += x.square().sum(0)
        self._n_tokens += n_new

    @property
    def variance(self) -> Tensor:
        """Population variance over all tokens; 0 before the first token."""
        return self._spread / max(self._n_tokens, 1)

    @property
    def value(self) -> Tensor:
        """`[3, in]`: total, squares and variance."""
        return torch.stack([self.total, self.squares, self.variance])


@dataclass(frozen=True)
class DSnoTSwaps(Refinement):
    """Swaps weights of each row one by one, by the mean and the variance of the inputs.

    Attributes:
        blocks: blocks whose targets are refined; other targets keep their mask. The authors skip the MLP.
        max_cycles: maximum number of swaps per row.
        update_threshold: a row is done once its error is at most this; in units of the output, summed over
            the tokens of a sample.
        variance_power: exponent of an input's variance in the order in which weights come back, in [0, 6];
            0 ignores the variance.
        same_sign: a swap that would change the sign of a row's error is not made and ends that row. Always
            on with N:M.
    """

    blocks: Literal["attention", "mlp", "all"] = "attention"
    max_cycles: int = 50
    update_threshold: float = 0.1
    variance_power: float = 1.0
    same_sign: bool = False

    name: ClassVar[str] = "dsnot"
    version: ClassVar[int] = 1
    statistics = (InputMoments,)

    def __post_init__(self) -> None:
        if self.max_cycles < 1:
            raise InputError(f"method 'dsnot': max_cycles must be at least 1, not {self.max_cycles}")
        if not self.update_threshold >= 0:
            raise InputError(
                f"method 'dsnot': update_threshold must be at least 0, not {self.update_threshold:g}"
            )
        if not 0 <= self.variance_power <= MAX_VARIANCE_POWER:
            raise InputError(
                f"method 'dsnot': variance_power {self.variance_power:g} is outside [0, {MAX_VARIANCE_POWER}]"
            )

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """One output row."""
        return (1, shape[1])

    def refine(self, problem: Problem, found: Solution) -> Solution:
        """See `Refinement.refine`; an expert that no token reached keeps its mask."""
        if self.blocks not in ("all", problem.block):
            return found
        if problem.n_tokens == 0:
            return replace(found, swaps=0, warnings=(*found.warnings, UNREACHED))
        moments = problem.inputs[InputMoments]
        weight, pattern = problem.weight, problem.pattern
        influence = weight * (moments.total / problem.n_samples)
        cost = wanda_scores(weight, moments.squares)
        require_finite(influence, problem.name, "its influences on the output")
        require_finite(cost, problem.name, "its Wanda scores")
        m = pattern.m if isinstance(pattern, SemiStructured) else None
        keep = refine(
            found.keep,
            influence,
            reliabilities(influence, moments.variance, self.variance_power),
            cost,
            m=m,
            max_cycles=self.max_cycles,
            threshold=self.update_threshold,
            same_sign=self.same_sign or m is not None,
        )
        return found.refined(keep, problem.target, *dead_inputs(moments.squares, "were not swapped"))


def reliabilities(influence: Tensor, variance: Tensor, power: float) -> Tensor:
    """Returns M_ij / v_j^p: how reliably a weight that comes back changes the output by its influence.

    An input that never varies is the most reliable: its variance counts as the smallest normal number of
    fp32, so its weights rank before all others, and among each other by influence.

    Args:
        influence: M, `[out, in]`.
        variance: v, `[in]`.
        power: p in [0, 6].

    Returns:
        fp64 `[out, in]`, finite, with the signs of `influence`.
    """
    smallest = torch.finfo(torch.float32).tiny
    return influence.double() / variance.double().clamp(min=smallest).pow(power)


def refine(
    keep: Tensor,
    influence: Tensor,
    reliability: Tensor,
    cost: Tensor,
    *,
    m: int | None,
    max_cycles: int,
    threshold: float,
    same_sign: bool,
) -> Tensor:
    """Returns the keep-mask after each row has swapped weights until its error is small (arXiv 2310.08915).

    A row's error is the sum of the influences of its pruned weights: the amount that its output lacks in
    expectation. While the error is above 0, each swap restores the most reliable pruned weight with an
    influence above 0 and removes the cheapest kept weight with an influence below 0; if the error is below 0,
    the signs are reversed. With N:M the cheapest kept weight of the same group is removed, whatever its
    influence. A weight takes part in at most one swap. Of equal weights the one with the lower index is
    restored first, or removed first.

    A row is done when
    - its absolute error is not above the threshold, or it has made `max_cycles` swaps;
    - no pruned weight is left whose influence has the sign of the error (weights of influence 0, such as all
      those of dead inputs, are never restored);
    - no kept weight is left to remove: none of the opposite sign, or with N:M none in the group;
    - `same_sign` is set and the swap would change the sign of the error from the initial one (0 counts as a
      sign of its own); that swap is not made.

    In the authors' code a row whose list of pruned weights is exhausted continues with its kept weights, and
    loses its number of survivors. Rows with at least as many candidates as cycles, that is from a few hundred
    weights on, swap the same pairs in both.

    Args:
        keep: bool `[out, in]`, the initial mask.
        influence: M_ij = W_ij * s_j, where s_j is the sum of input j over the tokens of a sample, averaged
            over samples.
        reliability: ranks the pruned weights; finite, with the signs of `influence`.
        cost: ranks the kept weights; finite, Wanda's metric.
        m: M of an N:M pattern; None for an unstructured one.
        max_cycles: maximum number of swaps per row, at least 1.
        threshold: at least 0.
        same_sign: see above.

    Returns:
        bool `[out, in]` with as many survivors in each row, and in each group of M.
    """
    positive, negative = influence > 0, influence < 0
    # Queues for rows whose error is above 0 (first) and below 0 (second), `[2, out, length]`.
    coming = torch.stack(
        [
            _queue(-reliability, positive & ~keep, max_cycles),
            _queue(reliability, negative & ~keep, max_cycles),
        ]
    )
    if m is None:
        queued = torch.stack(
            [_queue(cost, negative & keep, max_cycles), _queue(cost, positive & keep, max_cycles)]
        )
    else:
        alive = cost.masked_fill(~keep, torch.inf)
    error = influence.masked_fill(keep, 0).sum(1, dtype=torch.float64)
    initial_sign = error.sign()
    refined = keep.clone()
    rows = torch.arange(len(keep), device=keep.device)
    n_made = torch.zeros(coming.shape[:2], dtype=torch.int64, device=keep.device)
    for _ in range(max_cycles):
        rows = rows[error[rows].abs() > threshold]
        side = (error[rows] < 0).long()
        turn = n_made[side, rows]
        comes = coming[side, rows, turn]
        goes = queued[side, rows, turn] if m is None else _cheapest_of_group(alive, rows, comes, m)
        after = error[rows] + influence[rows, goes] - influence[rows, comes]
        made = (comes != NOBODY) & (goes != NOBODY)
        if same_sign:
            made &= after.sign() == initial_sign[rows]
        rows, side, comes, goes = rows[made], side[made], comes[made], goes[made]
        if not len(rows):
            break
        error[rows] = after[made]
        refined[rows, comes] = True
        refined[rows, goes] = False
        n_made[side, rows] += 1
        if m is not None:
            alive[rows, goes] = torch.inf
    return refined


def _queue(values: Tensor, among: Tensor, length: int) -> Tensor:
    """Returns the positions of the lowest values of each row, lowest first, of equal ones the lower index.

    Args:
        values: `[rows, n]`, finite.
        among: bool `[rows, n]`, the positions to choose from.
        length: maximum number of positions.

    Returns:
        int64 `[rows, min(length, n) + 1]`; filled up with `NOBODY` behind the last position.
    """
    values = values.masked_fill(~among, torch.inf)
    length = min(length, values.shape[1])
    chosen = up_to(values, kth_lowest(values, length), length).nonzero()[:, 1].reshape(-1, length)
    ranked, order = values.gather(1, chosen).sort(dim=1, stable=True)
    queue = chosen.gather(1, order).masked_fill(ranked.isinf(), NOBODY)
    return nn.functional.pad(queue, (0, 1), value=NOBODY)


def _cheapest_of_group(alive: Tensor, rows: Tensor, comes: Tensor, m: int) -> Tensor:
    """Returns the position of the lowest of `alive` in the group of M that contains `comes`, per row.

    `NOBODY` if the group has no kept weight left.
    """
    first = comes.div(m, rounding_mode="floor") * m
    group = alive[rows[:, None], first[:, None] + torch.arange(m, device=first.device)]
    cheapest = group.argmin(1)
    gone = group.gather(1, cheapest[:, None]).squeeze(1).isinf()
    return (first + cheapest).masked_fill(gone, NOBODY)


__all__ = ["DSnoTSwaps", "InputMoments", "refine", "reliabilities"]
