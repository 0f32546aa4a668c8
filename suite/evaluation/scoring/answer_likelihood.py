"""Computes how unlikely a model finds answers, for example those of another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base import Placement
from methods.engine.layer_inputs import TokenBatch
from suite.evaluation.scoring.decoder_pass import running
from suite.evaluation.scoring.output_head import OutputHead
from suite.evaluation.scoring.perplexity import token_losses
from suite.evaluation.scoring.responses import Answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = 2048
TOKENS_PER_CHUNK = 256
"""Number of tokens whose logits are computed at a time, because a vocabulary is large."""


def answer_nll(
    model: PreTrainedModel,
    encoded_prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    *,
    placement: Placement = Placement(),
    batch_tokens: int = TOKENS_PER_BATCH,
    on_answers: Callable[[int], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> list[float | None]:
    """Computes how unlikely `model` finds answers, which may be those of another model.

    If memory runs out, the batch is halved and the same answers are tried again.

    Args:
        model: a causal language model in evaluation mode; the dense one, to judge a pruned one's answers.
        encoded_prompts: token ids of the prompts that were answered.
        answers: one answer per prompt.
        placement: where its decoder layers are stored; onloaded ones are loaded once for all answers.
        batch_tokens: approximate number of tokens per batch, padding included.
        on_answers: called with the number of finished answers after each batch; each counts as many times as
            `suite.evaluation.scoring.decoder_pass.steps_each` returns.
        on_remark: called with remarks for the reader: whether memory ran out.

    Returns:
        Mean negative log-likelihood in nats per generated token, one value per answer; None if the answer is
        empty or the value is not finite.

    Raises:
        HeadError: the model cannot be split into body and head.
        StructureError: its layers are onloaded, and its structure cannot be read.
    """
    pairs = [(tuple(p), a.token_ids) for p, a in zip(encoded_prompts, answers, strict=True)]
    if not any(answer for _, answer in pairs):
        return [None] * len(pairs)
    sequences = [(*prompt, *answer) for prompt, answer in pairs]
    size = max(1, batch_tokens // max(map(len, sequences)))
    batches = [TokenBatch.padded(sequences[n : n + size]) for n in range(0, len(sequences), size)]
    with running(model, batches, placement, on_passed=on_answers) as body:
        if on_remark is not None:
            for remark in body.remarks:
                on_remark(remark)

        def judge(hidden_BTH: Tensor, members: slice) -> list[float | None]:
            return _batch_nll(body.head, hidden_BTH, pairs[members])

        def halved(n_answers: int, _: int) -> None:
            if on_remark is not None:
                on_remark(f"memory ran out; it went on with batches of {n_answers} answers")

        return body.score(judge, on_done=on_answers, on_halved=halved)


@torch.inference_mode()
def _batch_nll(
    head: OutputHead, hidden_BTH: Tensor, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[float | None]:
    """Returns the mean loss of every answer after its prompt."""
    means: list[float | None] = []
    for (prompt, answer), hidden_TH in zip(pairs, hidden_BTH, strict=True):
        start, stop = len(prompt) - 1, len(prompt) + len(answer) - 1
        target_T = torch.tensor(answer, dtype=torch.int64, device=hidden_TH.device)
        means.append(_mean_nll(head, hidden_TH[start:stop], target_T) if answer else None)
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
