"""The loss of every evaluation window; perplexity is exp of their mean (docs/protocols.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = 2048
TOKENS_PER_CHUNK = 256
"""Logits of this many tokens are widened to fp32 at once: a vocabulary is large."""


def window_losses(
    model: PreTrainedModel, input_ids: Tensor, *, on_windows: Callable[[int], None] | None = None
) -> Tensor:
    """Mean negative log-likelihood of the seqlen - 1 predicted tokens of every window.

    Args:
        model: a causal language model in evaluation mode.
        input_ids: int64 `[n_windows, seqlen]`.
        on_windows: called with the number of windows done, batch by batch.

    Returns:
        Nats, float64 `[n_windows]` on the CPU; NaN or infinite where the model's logits are.
    """
    losses: list[Tensor] = []
    with torch.inference_mode():
        for batch in torch.split(input_ids, max(1, TOKENS_PER_BATCH // input_ids.shape[1])):
            tokens = batch.to(model.device)
            logits_BTV = model(input_ids=tokens, use_cache=False).logits[:, :-1]
            losses.extend(
                _token_losses(logits_TV, target_T).double().mean().cpu()
                for logits_TV, target_T in zip(logits_BTV, tokens[:, 1:], strict=True)
            )
            if on_windows is not None:
                on_windows(len(batch))
    return torch.stack(losses)


def _token_losses(logits_TV: Tensor, target_T: Tensor) -> Tensor:
    """-log softmax at the targets in fp32, `[T]`, a chunk of tokens at a time."""
    losses = []
    for logits, target in zip(
        torch.split(logits_TV, TOKENS_PER_CHUNK), torch.split(target_T, TOKENS_PER_CHUNK), strict=True
    ):
        logits = logits.float()
        losses.append(logits.logsumexp(-1) - logits.gather(-1, target.unsqueeze(-1)).squeeze(-1))
    return torch.cat(losses)


__all__ = ["window_losses"]
