"""How unlikely a model finds answers that may be another model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base import Placement
from methods.recorder import TokenBatch
from suite.evaluation.batches import in_batches
from suite.evaluation.body import Body, running
from suite.evaluation.head import OutputHead
from suite.evaluation.perplexity import token_losses
from suite.evaluation.responses import Answer

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
    placement: Placement = Placement(),
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
        placement: where its decoder layers are; onloaded ones visit the device once for all answers.
        batch_tokens: how many tokens are run at once, about, padding included.
        on_answers: called with the number of answers done, batch by batch; of each as often as
            `suite.evaluation.body.steps_each` says.
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
    sequences = [(*prompt, *answer) for prompt, answer in pairs]
    size = max(1, batch_tokens // max(map(len, sequences)))
    batches = [TokenBatch.padded(sequences[n : n + size]) for n in range(0, len(sequences), size)]
    with running(model, batches, placement, on_passed=on_answers) as body:

        def judge(members: Sequence[int]) -> list[float | None]:
            rows = slice(members[0], members[-1] + 1)
            return _batch_nll(body, rows, pairs[rows])

        return in_batches(range(len(pairs)), size, judge, on_answers, on_halved)


@torch.inference_mode()
def _batch_nll(
    body: Body, rows: slice, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[float | None]:
    """The mean loss of every answer after its prompt."""
    means: list[float | None] = []
    for (prompt, answer), hidden_TH in zip(pairs, body.hidden(rows), strict=True):
        start, stop = len(prompt) - 1, len(prompt) + len(answer) - 1
        target_T = torch.tensor(answer, dtype=torch.int64, device=hidden_TH.device)
        means.append(_mean_nll(body.head, hidden_TH[start:stop], target_T) if answer else None)
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
