"""Divergence of a pruned model's next-token distributions from the dense model's."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.evaluation.scoring.perplexity import few_rows


def token_divergence(dense_TV: Tensor, pruned_TV: Tensor) -> tuple[Tensor, Tensor]:
    """Computes KL divergence and agreement of the likeliest token, token by token.

    KL(dense || pruned) = sum over the vocabulary of p * (log p - log q), p the dense model's probability and
    q the pruned one's. Exactly 0 if the logits are equal.

    Args:
        dense_TV: the dense model's logits `[n_tokens, vocabulary]`, of any dtype; widened to fp32 here.
        pruned_TV: the pruned model's logits for the same tokens.

    Returns:
        KL in nats, fp32 `[n_tokens]`, and whether both find the same token likeliest, bool `[n_tokens]`.
    """
    parts = zip(few_rows(dense_TV), few_rows(pruned_TV), strict=True)
    kl_T = torch.cat([_divergence(dense, pruned) for dense, pruned in parts])
    # `argmax` of bf16 takes four times as long on a CPU.
    return kl_T, dense_TV.max(-1).indices == pruned_TV.max(-1).indices


def _divergence(dense_TV: Tensor, pruned_TV: Tensor) -> Tensor:
    log_p = dense_TV.float().log_softmax(-1)
    log_q = pruned_TV.float().log_softmax(-1)
    difference = log_p - log_q
    if log_p.isneginf().any():
        # A token that the dense model rules out adds p log p = 0, but 0 times infinity would be NaN.
        difference.masked_fill_(log_p.isneginf(), 0.0)
    return log_p.exp_().mul_(difference).sum(-1)


__all__ = ["token_divergence"]
