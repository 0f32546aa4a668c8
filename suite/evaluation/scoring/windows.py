"""Scores a model on evaluation windows in one pass: losses and divergence from a dense model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from methods.base import Placement
from methods.engine.layer_inputs import TokenBatch
from suite.evaluation.scoring.decoder_pass import running
from suite.evaluation.scoring.divergence import token_divergence
from suite.evaluation.scoring.output_head import OutputHead
from suite.evaluation.scoring.perplexity import token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HOST_TOKENS, ACCELERATOR_TOKENS = 2048, 8192
"""Approximate number of tokens per batch."""
TOKENS_PER_CHUNK = 256
"""Number of tokens whose logits are computed at a time, because a vocabulary is large."""


@dataclass(frozen=True)
class WindowScores:
    """The results of a pass over windows, one value per window, on the CPU.

    Attributes:
        nll: mean negative log-likelihood of the predicted tokens in nats, float64 `[n_windows]`; NaN or
            infinite if the model's logits are.
        kl: mean KL(dense || model) over the same tokens in nats, float64 `[n_windows]`; None without a dense
            model.
        agreement: share of these tokens for which both models find the same token likeliest, float64
            `[n_windows]`; None without a dense model.
        hidden: the final hidden states `[n_windows, seqlen, hidden]` in the model's dtype, if requested.
        head: the model's own head, which computes logits from `hidden` without the model, if requested.
        remarks: remarks for the reader: whether memory ran out.
    """

    nll: Tensor
    kl: Tensor | None = None
    agreement: Tensor | None = None
    hidden: Tensor | None = None
    head: OutputHead | None = None
    remarks: tuple[str, ...] = ()


class _Window(NamedTuple):
    """The scores of one window."""

    nll: Tensor
    kl: Tensor | None
    agreement: Tensor | None
    hidden: Tensor | None


def score_windows(
    model: PreTrainedModel,
    input_ids: Tensor,
    *,
    placement: Placement = Placement(),
    n_first: int = 0,
    dense_hidden: Tensor | None = None,
    dense_head: OutputHead | None = None,
    keep_hidden: bool = False,
    keep_head: bool = False,
    on_windows: Callable[[int], None] | None = None,
) -> WindowScores:
    """Runs `model` over windows once.

    If memory runs out, the batch is halved and the same windows are tried again.

    Args:
        model: a causal language model in evaluation mode.
        input_ids: token ids, int64 `[n_windows, seqlen]`.
        placement: where its decoder layers are stored; onloaded ones are loaded once for all windows.
        n_first: number of tokens at the start of each window that are never predicted; the first token of a
            window never is.
        dense_hidden: the dense model's `hidden` of the same windows.
        dense_head: the dense model's `head`, which turns them into its logits; None = the model's own head,
            if it is known to be the same, as after a prune that passed the contract.
        keep_hidden: whether to return the model's own hidden states, for a later pruned model.
        keep_head: whether to return its head too, for a later model whose head may differ.
        on_windows: called with the number of finished windows after each batch; each window counts as many
            times as `suite.evaluation.scoring.decoder_pass.steps_each` returns.

    Raises:
        HeadError: the model cannot be split into body and head.
        StructureError: its layers are onloaded, and its structure cannot be read.
    """
    device = placement.device or model.device
    n_tokens = HOST_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS
    size = max(1, n_tokens // input_ids.shape[1])
    halved: list[int] = []
    batches = [TokenBatch(part) for part in torch.split(input_ids, size)]
    with running(model, batches, placement, on_passed=on_windows) as body:

        def score(hidden_BTH: Tensor, windows: slice) -> list[_Window]:
            dense = None if dense_hidden is None else dense_hidden[windows]
            heads = (body.head, dense_head or body.head)
            return _score_batch(heads, hidden_BTH, input_ids[windows], dense, max(1, n_first), keep_hidden)

        found = body.score(score, on_done=on_windows, on_halved=lambda n, _: halved.append(n))
        kept_head = body.head.detached() if keep_head else None
    nll, kl, agreement, hidden = zip(*found, strict=True)
    remarks = list(body.remarks)
    if halved:
        remarks.append(f"memory ran out; it went on with batches of {halved[-1]} windows")
    return WindowScores(
        nll=torch.stack(nll),
        kl=_stacked(kl),
        agreement=_stacked(agreement),
        hidden=_stacked(hidden),
        head=kept_head,
        remarks=tuple(remarks),
    )


def _stacked(values: tuple[Tensor | None, ...]) -> Tensor | None:
    """Stacks one value per window into a tensor; None if there are no values."""
    known = [value for value in values if value is not None]
    return torch.stack(known) if known else None


@torch.inference_mode()
def _score_batch(
    heads: tuple[OutputHead, OutputHead],
    hidden_BTH: Tensor,
    tokens_BT: Tensor,
    dense: Tensor | None,
    first: int,
    keep_hidden: bool,
) -> list[_Window]:
    """Returns the scores of some windows; `first` is the position of the first predicted token in each."""
    found = []
    tokens_BT = tokens_BT.to(hidden_BTH.device)
    for window, (hidden_TH, tokens_T) in enumerate(zip(hidden_BTH, tokens_BT, strict=True)):
        # The last token predicts nothing inside its window.
        predicting = slice(first - 1, -1)
        dense_TH = None if dense is None else dense[window, predicting].to(hidden_TH.device)
        scores = _score_tokens(heads, hidden_TH[predicting], tokens_T[first:], dense_TH)
        means = [None if score_T is None else score_T.double().mean().cpu() for score_T in scores]
        nll, kl, agreement = means
        assert nll is not None
        found.append(_Window(nll, kl, agreement, hidden_TH.to("cpu", copy=True) if keep_hidden else None))
    return found


def _score_tokens(
    heads: tuple[OutputHead, OutputHead], hidden_TH: Tensor, target_T: Tensor, dense_TH: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Computes loss, divergence and agreement `[T]` of one window, one chunk of tokens at a time.

    `heads` are the model's head and the dense model's.
    """
    head, dense_head = heads
    nll, kl, same = [], [], []
    for first in range(0, len(target_T), TOKENS_PER_CHUNK):
        chunk = slice(first, first + TOKENS_PER_CHUNK)
        logits_TV = head.logits(hidden_TH[chunk])
        nll.append(token_losses(logits_TV, target_T[chunk]))
        if dense_TH is not None:
            kl_T, same_T = token_divergence(dense_head.logits(dense_TH[chunk]), logits_TV)
            kl.append(kl_T)
            same.append(same_T)
    return torch.cat(nll), torch.cat(kl) if kl else None, torch.cat(same) if same else None


__all__ = ["WindowScores", "score_windows"]
