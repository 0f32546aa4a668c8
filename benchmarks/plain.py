"""Plain implementations to compare ours with: sorts, loops over samples, rows and columns, copies in fp32.

They follow the formulas directly, as the methods' first implementations did, and make the same decisions.
None of them is used to prune.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prune_lowest(scores: Tensor, k: int) -> Tensor:
    """Keep-mask without the k lowest of each row `[groups, n]`, by sorting everything."""
    order = scores.sort(dim=-1, stable=True).indices
    return torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :k], value=False)


def prune_n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """Keep-mask of the N highest in every M columns of `[out, in]`, group by group."""
    keep = torch.ones_like(scores, dtype=torch.bool)
    for start in range(0, scores.shape[1], m):
        order = scores[:, start : start + m].sort(dim=1, stable=True).indices
        keep.scatter_(1, start + order[:, : m - n], value=False)
    return keep


def input_norms(samples: Sequence[Tensor]) -> Tensor:
    """sum_t X_tj^2 `[in]`, one sample `[tokens, in]` at a time, each copied to fp32."""
    total = torch.zeros(samples[0].shape[1])
    for sample in samples:
        total += torch.norm(sample.float(), p=2, dim=0) ** 2
    return total


def gram(samples: Sequence[Tensor]) -> Tensor:
    """X^T X `[in, in]`, one sample at a time, each copied to fp32."""
    total = torch.zeros(samples[0].shape[1], samples[0].shape[1])
    for sample in samples:
        x = sample.float()
        total += x.t().matmul(x)
    return total


def squared_gradients(weight: Tensor, samples: Sequence[Tensor], upstream: Sequence[Tensor]) -> Tensor:
    """sum_j g_j^2 `[out, in]`, by autograd through a Linear, one sample at a time.

    Args:
        weight: `[out, in]`.
        samples: inputs of the Linear, `[tokens, in]` each.
        upstream: gradients of the loss with respect to its outputs, `[tokens, out]` each.
    """
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.float().clone()
    total = torch.zeros_like(linear.weight.data)
    for sample, dy in zip(samples, upstream, strict=True):
        linear.zero_grad()
        linear(sample.float()).backward(dy.float())
        assert linear.weight.grad is not None
        total += linear.weight.grad**2
    return total


def rebuild(keep: Tensor, scores: Tensor, ratio: float) -> Tensor:
    """LLM-Barber's swaps in each row of `[out, in]`, row by row."""
    rebuilt = keep.clone()
    for row in range(keep.shape[0]):
        coming, going = _swaps(keep[row], scores[row], ratio)
        rebuilt[row, coming] = True
        rebuilt[row, going] = False
    return rebuilt


def rebuild_n_of_m(keep: Tensor, scores: Tensor, m: int, ratio: float) -> Tensor:
    """LLM-Barber's swaps with the number of survivors in each group of M unchanged, newcomer by newcomer."""
    rebuilt = keep.clone()
    for row in range(keep.shape[0]):
        coming, _ = _swaps(keep[row], scores[row], ratio)
        left: dict[int, list[int]] = {}
        for newcomer in coming.tolist():
            group = newcomer // m
            if group not in left:
                kept = [j for j in range(group * m, group * m + m) if keep[row, j]]
                left[group] = sorted(kept, key=lambda j: float(scores[row, j]))
            if left[group] and scores[row, newcomer] > scores[row, left[group][0]]:
                rebuilt[row, left[group].pop(0)] = False
                rebuilt[row, newcomer] = True
    return rebuilt


def _swaps(keep: Tensor, scores: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Returns which weights of one row come back and which are pruned, best pairs first."""
    pruned, kept = (~keep).nonzero().flatten(), keep.nonzero().flatten()
    coming = pruned[scores[pruned].sort(descending=True, stable=True).indices]
    going = kept[scores[kept].sort(stable=True).indices]
    pairs = min(len(coming), len(going))
    profitable = int((scores[coming[:pairs]] > scores[going[:pairs]]).sum())
    swapped = int(profitable * Fraction(repr(ratio)))
    return coming[:swapped], going[:swapped]


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian."""
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian))
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    return factor


def solve_columns(
    weight: Tensor, factor: Tensor, *, sparsity: float | None = None, n_of_m: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """SparseGPT's walk through blocks of 128 columns, one column after another (arXiv 2301.00774).

    Returns:
        Keep-mask bool `[out, in]` and the new weight.
    """
    weight = weight.clone()
    keep = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], 128):
        end = min(start + 128, weight.shape[1])
        block, errors = weight[:, start:end].clone(), torch.zeros_like(weight[:, start:end])
        u = factor[start:end, start:end]
        if sparsity is not None:
            score = block**2 / u.diagonal() ** 2
            flat = prune_lowest(score.reshape(1, -1), int(score.numel() * sparsity))
            keep[:, start:end] = flat.reshape(score.shape)
        for i in range(end - start):
            if n_of_m is not None and i % n_of_m[1] == 0:
                group = slice(i, i + n_of_m[1])
                score = block[:, group] ** 2 / u.diagonal()[group] ** 2
                keep[:, start + i : start + i + n_of_m[1]] = prune_n_of_m(score, *n_of_m)
            column = block[:, i]
            kept = torch.where(keep[:, start + i], column, 0)
            error = (column - kept) / u[i, i]
            block[:, i:] -= error.unsqueeze(1).matmul(u[i, i:].unsqueeze(0))
            block[:, i] = kept
            errors[:, i] = error
        weight[:, start:end] = block
        weight[:, end:] -= errors.matmul(factor[start:end, end:])
    return keep, weight


def window_losses(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """Mean loss of each window `[n_windows, seqlen]`, one at a time, with all logits in fp32."""
    losses = []
    with torch.no_grad():
        for window in input_ids:
            logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
            losses.append(nn.functional.cross_entropy(logits, window[1:]).double())
    return torch.stack(losses)


__all__ = [
    "gram",
    "input_norms",
    "inverse_factor",
    "prune_lowest",
    "prune_n_of_m",
    "rebuild",
    "rebuild_n_of_m",
    "solve_columns",
    "squared_gradients",
    "window_losses",
]
