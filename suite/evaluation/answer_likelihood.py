"""How unlikely a model finds answers that may be another model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from suite.evaluation.batches import in_batches
from suite.evaluation.head import OutputHead
from suite.evaluation.perplexity import token_losses
from suite.evaluation.responses import PADDING, Answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = 2048
TOKENS_PER_CHUNK = 256
"""Logits exist for this many tokens at a time: a vocabulary is large."""


def answer_nll(
    model: PreTrainedModel,
    encoded_prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    *,
    batch_tokens: int = TOKENS_PER_BATCH,
    on_answers: Callable[[int], None] | None = None,
    on_halved: Callable[[int], None] | None = None,
) -> list[float | None]:
    """How unlikely `model` finds answers, which may be another model's.

    Where memory runs out the batch is halved, and the same answers are tried again.

    Args:
        model: a causal language model in evaluation mode; the dense one, to judge a pruned one's answers.
        encoded_prompts: token ids of the prompts that were answered.
        answers: one a prompt.
        batch_tokens: how many tokens are run at once, about, padding included.
        on_answers: called with the number of answers done, batch by batch.
        on_halved: called with the number of answers in a batch from then on, where memory ran out.

    Returns:
        Mean negative log-likelihood in nats per generated token, one an answer; None where the answer is
        empty, or the value no finite number.

    Raises:
        HeadError: the model cannot be taken apart into body and head.
    """
    pairs = [(tuple(p), a.token_ids) for p, a in zip(encoded_prompts, answers, strict=True)]
    if not any(answer for _, answer in pairs):
        return [None] * len(pairs)
    head = OutputHead(model, torch.tensor(pairs[0][0]))
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    return in_batches(
        pairs,
        max(1, batch_tokens // longest),
        lambda batch: _batch_nll(head, batch, model.device),
        on_answers,
        on_halved,
    )


@torch.inference_mode()
def _batch_nll(
    head: OutputHead, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], device: torch.device
) -> list[float | None]:
    """The mean loss of every answer after its prompt."""
    # Padding comes last, where a causal model does not see it.
    rows = [torch.tensor([*prompt, *answer]) for prompt, answer in pairs]
    tokens_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING).to(device)
    lengths_B = torch.tensor([len(row) for row in rows], device=device)
    mask_BT = torch.arange(tokens_BT.shape[1], device=device) < lengths_B[:, None]
    hidden_BTH = head.hidden(tokens_BT, mask_BT.long())
    means: list[float | None] = []
    for (prompt, answer), hidden_TH, tokens_T in zip(pairs, hidden_BTH, tokens_BT, strict=True):
        start, stop = len(prompt), len(prompt) + len(answer)
        means.append(
            _mean_nll(head, hidden_TH[start - 1 : stop - 1], tokens_T[start:stop]) if answer else None
        )
    return means


def _mean_nll(head: OutputHead, hidden_TH: Tensor, target_T: Tensor) -> float | None:
    losses = [
        token_losses(head.logits(hidden), target)
        for hidden, target in zip(
            torch.split(hidden_TH, TOKENS_PER_CHUNK), torch.split(target_T, TOKENS_PER_CHUNK), strict=True
        )
    ]
    mean = torch.cat(losses).double().mean()
    return float(mean) if mean.isfinite() else None


__all__ = ["answer_nll"]
