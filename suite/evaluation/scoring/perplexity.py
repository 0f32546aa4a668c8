"""The loss of tokens under a model; perplexity is exp of their mean (docs/protocols.md)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

ROWS_IN_CACHE = 16
"""Rows of logits that a CPU widens and sums at once, so that intermediate values never leave its cache
(`python -m benchmarks.evaluation` measures a pass)."""


def token_losses(logits_TV: Tensor, target_T: Tensor) -> Tensor:
    """Computes the negative log-likelihood of each target, -log softmax(logits)[target].

    Args:
        logits_TV: logits `[n_tokens, vocabulary]`, of any dtype; widened to fp32 here.
        target_T: target token ids, int64 `[n_tokens]`.

    Returns:
        Losses in nats, fp32 `[n_tokens]`.
    """
    parts = zip(few_rows(logits_TV), few_rows(target_T), strict=True)
    return torch.cat([F.cross_entropy(logits.float(), target, reduction="none") for logits, target in parts])


def few_rows(rows: Tensor) -> tuple[Tensor, ...]:
    """Splits `rows` into portions that fit into a CPU's cache; on an accelerator, returns them unsplit."""
    return torch.split(rows, ROWS_IN_CACHE) if rows.device.type == "cpu" else (rows,)


__all__ = ["few_rows", "token_losses"]
