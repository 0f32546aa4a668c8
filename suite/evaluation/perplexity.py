"""The loss of tokens under a model; perplexity is exp of their mean (docs/protocols.md)."""

from __future__ import annotations

from torch import Tensor


def token_losses(logits_TV: Tensor, target_T: Tensor) -> Tensor:
    """Negative log-likelihood of each target, -log softmax(logits)[target].

    Args:
        logits_TV: `[n_tokens, vocabulary]`, of any dtype; widened to fp32 here, so give a chunk of tokens.
        target_T: int64 `[n_tokens]`.

    Returns:
        Nats, fp32 `[n_tokens]`.
    """
    logits_TV = logits_TV.float()
    picked_T = logits_TV.gather(-1, target_T.unsqueeze(-1)).squeeze(-1)
    return logits_TV.logsumexp(-1) - picked_T


__all__ = ["token_losses"]
