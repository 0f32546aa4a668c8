"""How far a pruned model's next-token distributions are from the dense model's."""

from __future__ import annotations

from torch import Tensor


def token_divergence(dense_TV: Tensor, pruned_TV: Tensor) -> tuple[Tensor, Tensor]:
    """KL divergence and agreement of the likeliest token, token by token.

    KL(dense || pruned) = sum over the vocabulary of p * (log p - log q), p the dense model's probability and
    q the pruned one's. Exactly 0 where the logits are equal.

    Args:
        dense_TV: the dense model's logits `[n_tokens, vocabulary]`, of any dtype; widened to fp32 here, so
            give a chunk of tokens.
        pruned_TV: the pruned model's, for the same tokens.

    Returns:
        Nats, fp32 `[n_tokens]`, and whether both find the same token likeliest, bool `[n_tokens]`.
    """
    log_p = dense_TV.float().log_softmax(-1)
    log_q = pruned_TV.float().log_softmax(-1)
    # Where p is 0 its logarithm is -inf, and the product would be NaN; its limit is 0.
    terms = (log_p - log_q).mul_(log_p.exp()).masked_fill_(log_p == -float("inf"), 0.0)
    return terms.sum(-1), dense_TV.argmax(-1) == pruned_TV.argmax(-1)


__all__ = ["token_divergence"]
