"""The loss of tokens under a model; perplexity is exp of their mean (docs/protocols.md)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

ROWS_IN_CACHE = 16
"""Rows of logits a CPU widens and sums at once: what is in between then never leaves its cache
(`python -m benchmarks.evaluation` has what a pass takes)."""


def token_losses(logits_TV: Tensor, target_T: Tensor) -> Tensor:
    """Negative log-likelihood of each target, -log softmax(logits)[target].

    Args:
        logits_TV: `[n_tokens, vocabulary]`, of any dtype; widened to fp32 here.
        target_T: int64 `[n_tokens]`.

    Returns:
        Nats, fp32 `[n_tokens]`.
    """
    parts = zip(few_rows(logits_TV), few_rows(target_T), strict=True)
    return torch.cat([F.cross_entropy(logits.float(), target, reduction="none") for logits, target in parts])


def few_rows(rows: Tensor) -> tuple[Tensor, ...]:
    """`rows` in portions that fit into a CPU's cache; on an accelerator as they are."""
    return torch.split(rows, ROWS_IN_CACHE) if rows.device.type == "cpu" else (rows,)


__all__ = ["few_rows", "token_losses"]
