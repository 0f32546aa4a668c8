"""The loss of every evaluation window; perplexity is exp of their mean (docs/protocols.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = 2048
TOKENS_PER_CHUNK = 256
"""Logits of this many tokens are widened to fp32 at once: a vocabulary is large."""


def window_losses(
    model: PreTrainedModel,
    input_ids: Tensor,
    *,
    on_windows: Callable[[int], None] | None = None,
    on_halved: Callable[[int], None] | None = None,
) -> Tensor:
    """Mean negative log-likelihood of the seqlen - 1 predicted tokens of every window.

    Where memory runs out the batch is halved, and the same windows are tried again.

    Args:
        model: a causal language model in evaluation mode.
        input_ids: int64 `[n_windows, seqlen]`.
        on_windows: called with the number of windows done, batch by batch.
        on_halved: called with the number of windows in a batch from then on, where memory ran out.

    Returns:
        Nats, float64 `[n_windows]` on the CPU; NaN or infinite where the model's logits are.
    """
    losses: list[Tensor] = []
    size = max(1, TOKENS_PER_BATCH // input_ids.shape[1])
    while len(losses) < len(input_ids):
        batch = input_ids[len(losses) : len(losses) + size]
        try:
            of_batch = _batch_losses(model, batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
        else:
            losses.extend(of_batch)
            if on_windows is not None:
                on_windows(len(batch))
            continue
        # Out here the error is gone, and with it what its frames held.
        size = len(batch) // 2
        if on_halved is not None:
            on_halved(size)
    return torch.stack(losses)


@torch.inference_mode()
def _batch_losses(model: PreTrainedModel, input_ids: Tensor) -> list[Tensor]:
    """The loss of every window of one batch `[batch, seqlen]`, float64 on the CPU."""
    tokens = input_ids.to(model.device)
    logits_BTV = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return [
        _token_losses(logits_TV, target_T).double().mean().cpu()
        for logits_TV, target_T in zip(logits_BTV, tokens[:, 1:], strict=True)
    ]


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
