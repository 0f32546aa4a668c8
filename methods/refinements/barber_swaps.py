"""LLM-Barber's rebuild of a block's masks by weight times gradient (arXiv 2408.10631)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.engine.block_gradient import BlockStudy, study_block
from methods.engine.steps import BlockRefinement, PrunedBlock, RefinedBlock
from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern
from methods.masks.selection import count_true, kth_lowest, prune_lowest, require_finite, up_to

Granularity = Literal["layer", "output", "input", "block"]
RebuildScore = Literal["weight_gradient", "weight", "gradient"]


@dataclass(frozen=True)
class BarberRebuild(BlockRefinement):
    """Swaps pruned for kept weights by |W| times the gradient of the sparse block's output error.

    Attributes:
        granularity: the set within which pruned and kept weights compete: `layer` (one Linear), `output` (a
            row), `input` (a column), `block` (all Linears of one block).
        rebuild_ratio: share of the profitable swaps that are made, in [0, 1].
        score: the score that ranks weights; the last two options are the paper's ablations.
        nm_guard: with N:M, a weight that comes back must score higher than the one that it replaces; the
            authors' code does not require this (False).
    """

    granularity: Granularity = "output"
    rebuild_ratio: float = 0.01
    score: RebuildScore = "weight_gradient"
    nm_guard: bool = True

    name: ClassVar[str] = "llm-barber"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rebuild_ratio <= 1:
            raise InputError(f"method 'llm-barber': rebuild_ratio {self.rebuild_ratio:g} is outside [0, 1]")

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """The set that `granularity` names; None for `block`, which spans several Linears.

        Raises:
            InputError: an N:M pattern with another granularity than `output`.
        """
        if isinstance(pattern, SemiStructured) and self.granularity != "output":
            raise InputError(
                f"method 'llm-barber': pattern {pattern} needs granularity 'output', not {self.granularity!r}"
            )
        rows, columns = shape
        return {"output": (1, columns), "input": (rows, 1), "layer": shape, "block": None}[self.granularity]

    def refine_block(self, pruned: PrunedBlock) -> RefinedBlock:
        """See `BlockRefinement.refine_block`."""
        block = pruned.block
        with pruned.clock.phase("statistics"):
            dense = {name: pruned.dense[name] for name in block.targets}
            gradients = self.score != "weight"
            study = study_block(pruned.stream, pruned.layer, block, dense, gradients=gradients)
        with pruned.clock.phase("solve"):
            scores = {name: self._score(name, pruned.full[name], study) for name in block.targets}
            rebuilt = rebuild_block(
                pruned.keep,
                scores,
                pruned.patterns,
                self.granularity,
                self.rebuild_ratio,
                guard=self.nm_guard,
            )
        return RefinedBlock(rebuilt, study.n_tokens, study.dense_probe, study.error_before)

    def _score(self, name: str, weight: Tensor, study: BlockStudy) -> Tensor:
        """Returns fp32 `[out, in]`: |W| * sqrt(mean_j g_j^2), or one of its factors for an ablation."""
        if self.score == "weight":
            score = weight.float().abs()
        else:
            # In place, to save memory: the gradients are not needed again, and are as large as the block.
            score = study.squared_gradients[name].sqrt_()
            if self.score == "weight_gradient":
                score.mul_(weight.float().abs())
        require_finite(score, name, "its LLM-Barber scores")
        return score


def rebuild(keep: Tensor, scores: Tensor, granularity: Granularity, ratio: float) -> Tensor:
    """Returns the keep-mask after the most profitable swaps of each comparison group.

    In a group, the pruned scores G are sorted descending and the kept ones Q ascending; r is the number of k
    with G_k > Q_k; the first floor(r * ratio) pairs are swapped. Every group keeps as many weights as before.

    Args:
        keep: bool `[out, in]` (or flat, with `layer`).
        scores: fp32 of the same shape, finite and not negative.
        granularity: `output` compares within rows, `input` within columns, `layer` everywhere. For `block`
            the caller concatenates the flat masks and passes `layer`.
        ratio: share of the profitable swaps that are made, in [0, 1].

    Returns:
        bool of the same shape.
    """
    if granularity == "input":
        return rebuild(keep.T.contiguous(), scores.T.contiguous(), "output", ratio).T.contiguous()
    if granularity == "output":
        swaps = _row_swaps(keep, scores, ratio)
    else:
        swaps = _whole_swaps(keep.reshape(1, -1), scores.reshape(1, -1), ratio)
    return (keep | swaps.coming.reshape(keep.shape)) & ~swaps.going.reshape(keep.shape)


def rebuild_block(
    keep: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    patterns: Mapping[str, UniformPattern],
    granularity: Granularity,
    ratio: float,
    *,
    guard: bool,
) -> dict[str, Tensor]:
    """Returns the keep-masks of all targets of one block after the most profitable swaps.

    Args:
        keep: target name -> bool `[out, in]`.
        scores: target name -> fp32 `[out, in]`, finite and not negative.
        patterns: target name -> its pattern; N:M requires granularity `output`.
        granularity: the set within which pruned and kept weights compete.
        ratio: share of the profitable swaps that are made, in [0, 1].
        guard: see `rebuild_n_of_m`.

    Returns:
        target name -> bool `[out, in]`.
    """
    if granularity == "block":
        flat_keep = torch.cat([mask.flatten() for mask in keep.values()])
        flat_scores = torch.cat([scores[name].flatten() for name in keep])
        rebuilt_flat = rebuild(flat_keep, flat_scores, "layer", ratio)
        parts = torch.split(rebuilt_flat, [mask.numel() for mask in keep.values()])
        return {name: part.reshape(keep[name].shape) for name, part in zip(keep, parts, strict=True)}
    rebuilt = {}
    for name, mask in keep.items():
        pattern = patterns[name]
        if isinstance(pattern, SemiStructured):
            rebuilt[name] = rebuild_n_of_m(mask, scores[name], pattern.m, ratio, guard=guard)
        else:
            rebuilt[name] = rebuild(mask, scores[name], granularity, ratio)
    return rebuilt


def rebuild_n_of_m(keep: Tensor, scores: Tensor, m: int, ratio: float, *, guard: bool) -> Tensor:
    """Returns the keep-mask of an N:M pattern after a rebuild that leaves N survivors in every group of M.

    The swaps of the whole row choose which pruned weights may come back. In each group these candidates,
    highest score first, are paired with the kept weights, lowest score first, and each pair is swapped.

    Args:
        keep: bool `[out, in]`, N survivors in each M consecutive inputs.
        scores: fp32 `[out, in]`, finite and not negative.
        m: M.
        ratio: share of a row's profitable swaps that are made, in [0, 1].
        guard: whether a candidate only replaces a weight that scores lower.

    Returns:
        bool `[out, in]`.
    """
    rows, inputs = keep.shape
    newcomers = _row_swaps(keep, scores, ratio).coming
    shape = (rows, inputs // m, m)
    score_RGM, keep_RGM, new_RGM = scores.reshape(shape), keep.reshape(shape), newcomers.reshape(shape)
    coming, coming_at = score_RGM.masked_fill(~new_RGM, -torch.inf).sort(dim=-1, descending=True, stable=True)
    going, going_at = score_RGM.masked_fill(~keep_RGM, torch.inf).sort(dim=-1, stable=True)
    meets = coming.isfinite() & going.isfinite()
    if guard:
        meets &= coming > going
    rebuilt = keep_RGM.clone()
    # Positions without a swap are written with their current value.
    rebuilt.scatter_(-1, coming_at, keep_RGM.gather(-1, coming_at) | meets)
    rebuilt.scatter_(-1, going_at, rebuilt.gather(-1, going_at) & ~meets)
    return rebuilt.reshape(rows, inputs)


def floor_share(counts: Tensor, ratio: float) -> Tensor:
    """Returns floor(count * ratio), with the ratio taken as an exact decimal (0.1 of 30 is 3)."""
    exact = Fraction(repr(ratio))
    different, place = torch.unique(counts, return_inverse=True)
    # In Python integers, because numerator times count may not fit into 64 bits.
    shares = [count * exact.numerator // exact.denominator for count in different.tolist()]
    return torch.tensor(shares, dtype=counts.dtype, device=counts.device)[place]


class _Swaps(NamedTuple):
    """The weights of each row that come back and that are removed: bool `[rows, n]`, equally many of each."""

    coming: Tensor
    going: Tensor


def _row_swaps(keep: Tensor, scores: Tensor, ratio: float) -> _Swaps:
    """Returns the swaps of every row.

    Only values are sorted, without their positions: the last value that swaps is enough to find the weights.
    """
    coming, going = _coming(keep, scores), _going(keep, scores)
    n_swaps, last_coming, last_going = _last_swap(coming, going, ratio)
    return _Swaps(up_to(coming, last_coming, n_swaps), up_to(going, last_going, n_swaps))


def _last_swap(coming: Tensor, going: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the number of pairs of each row that swap, and the last swapped value of both sequences.

    Each is `[rows, 1]`. The sorted sequences, which are as large as the scores, are freed on return.
    """
    best_first, worst_first = _sorted(coming).neg_(), _sorted(going)
    n_swaps = floor_share(count_true(best_first > worst_first), ratio)
    last, none = (n_swaps - 1).clamp(min=0), n_swaps == 0
    return (
        n_swaps,
        (-best_first.gather(-1, last)).masked_fill(none, -torch.inf),
        worst_first.gather(-1, last).masked_fill(none, -torch.inf),
    )


def _coming(keep: Tensor, scores: Tensor) -> Tensor:
    """Returns the negated pruned scores, so that the best sorts first; kept weights are inf and sort last."""
    return (-scores).masked_fill_(keep, torch.inf)


def _going(keep: Tensor, scores: Tensor) -> Tensor:
    """Returns the kept scores, so that the worst sorts first; pruned weights are inf and sort last."""
    return scores.masked_fill(~keep, torch.inf)


def _whole_swaps(keep: Tensor, scores: Tensor, ratio: float) -> _Swaps:
    """Returns the swaps of one large row `[1, n]` without sorting it.

    Let T be the n_pruned-th lowest of all scores, which would separate pruned from kept weights if scores
    alone decided. The sequences G and Q cross at T: r is the number of pruned scores above T or of kept
    scores below T, whichever is larger (they differ if scores are tied at T).
    """
    n_pruned = int((~keep).sum())
    if n_pruned in (0, keep.numel()):
        nobody = torch.zeros_like(keep)
        return _Swaps(nobody, nobody)
    threshold = kth_lowest(scores, n_pruned)
    profitable = torch.maximum(((scores > threshold) & ~keep).sum(), ((scores < threshold) & keep).sum())
    n_swaps = int(floor_share(profitable, ratio))
    return _Swaps(
        ~prune_lowest(_coming(keep, scores), n_swaps),
        ~prune_lowest(_going(keep, scores), n_swaps),
    )


def _sorted(values: Tensor) -> Tensor:
    """Sorts each row of `[rows, n]` in ascending order."""
    if values.device.type == "cpu":
        # NumPy sorts values without their positions: an order of magnitude faster than torch.
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values


__all__ = [
    "BarberRebuild",
    "Granularity",
    "RebuildScore",
    "floor_share",
    "rebuild",
    "rebuild_block",
    "rebuild_n_of_m",
]
