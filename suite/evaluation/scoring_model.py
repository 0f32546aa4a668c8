"""lm-eval's view of a model in memory: its requests are scored on the spot, without saving and loading."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from methods.errors import PruningError
from methods.out_of_memory import is_out_of_memory
from suite.evaluation.head import OutputHead
from suite.evaluation.perplexity import token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HOST_TOKENS, ACCELERATOR_TOKENS = 2048, 16384
"""In a batch, padding included. Fixed, because batches of another shape round differently."""
TOKENS_PER_CHUNK = 256

Request = tuple[Any, list[int], list[int]]
"""lm-eval's own key, the context's tokens and the continuation's."""


class ScoringModel(HFLM):  # type: ignore[misc]
    """Scores continuations in fp32 at the positions that are asked for, and nowhere else.

    lm-eval's own class forms log-probabilities over the vocabulary for every position, in the model's dtype;
    in bf16 that alone rounds a score to two or three digits. Here the head runs on continuations only, and a
    context with several one-token continuations, or the same request twice, runs once. What is asked, how it
    is tokenized and cut, and all that generates text, is lm-eval's own.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer; it is copied, since lm-eval gives it a padding token.
        on_scored: called with the number of requests that were scored, batch by batch.
        on_halved: called with the number of tokens in a batch from then on, where memory ran out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        on_scored: Callable[[int], None] | None = None,
        on_halved: Callable[[int], None] | None = None,
    ) -> None:
        # lm-eval puts one token before a request without a context, and fails where a tokenizer marks none.
        marked = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
        with _left_untied(model):
            super().__init__(
                pretrained=model,
                tokenizer=copy.deepcopy(tokenizer),
                batch_size=8,
                prefix_token_id=None if marked else 0,
            )
        self.tokens_per_batch = HOST_TOKENS if model.device.type == "cpu" else ACCELERATOR_TOKENS
        self._on_scored = on_scored
        self._on_halved = on_halved
        self._head: OutputHead | None = None

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's, without its bar."""
        scored: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return scored

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether greedy decoding would have written it."""
        of_input: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, continuation) in enumerate(requests):
            if not 0 < len(continuation) <= self.max_length:
                raise PruningError(
                    f"a task asks for an answer of {len(continuation)} tokens, and the model has "
                    f"{self.max_length} positions"
                )
            # As lm-eval cuts it: from the left, and the last token is only predicted.
            tokens = tuple((context + continuation)[-(self.max_length + 1) :][:-1])
            of_input.setdefault(tokens, []).append(place)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        # The longest first, so that memory runs out at once if it does; ties by content, for good order.
        waiting = sorted(of_input, key=lambda tokens: (-len(tokens), tokens))
        while waiting:
            batch = waiting[: max(1, self.tokens_per_batch // len(waiting[0]))]
            places = [of_input[tokens] for tokens in batch]
            try:
                scores = self._score(batch, [[requests[p][2] for p in of_tokens] for of_tokens in places])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
            else:
                for place, score in zip(chain.from_iterable(places), scores, strict=True):
                    found[place] = score
                del waiting[: len(batch)]
                if self._on_scored is not None:
                    self._on_scored(len(scores))
                continue
            # Out here the error is gone, and with it what its frames held.
            self.tokens_per_batch = len(batch[0]) * (len(batch) // 2)
            if self._on_halved is not None:
                self._on_halved(self.tokens_per_batch)
        return found

    @torch.inference_mode()
    def _score(
        self, batch: Sequence[tuple[int, ...]], asked: Sequence[Sequence[list[int]]]
    ) -> list[tuple[float, bool]]:
        """The scores of all continuations, input by input: each ends one token after its input does."""
        input_ids = torch.zeros(len(batch), len(batch[0]), dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        for row, tokens in enumerate(batch):
            input_ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        if self._head is None:
            self._head = OutputHead(self.model, input_ids[0])
        hidden_BTH = self._head.hidden(input_ids.to(self.device), mask.to(self.device))
        lengths = [max(map(len, continuations)) for continuations in asked]
        hidden_NH = torch.cat(
            [
                hidden_TH[len(tokens) - n : len(tokens)]
                for hidden_TH, tokens, n in zip(hidden_BTH, batch, lengths, strict=True)
            ]
        )
        # Several continuations may ask for other tokens at one position: (place in hidden_NH, token) pairs.
        ends = list(accumulate(lengths))
        continuations = [(end, c) for end, of_input in zip(ends, asked, strict=True) for c in of_input]
        places = torch.cat([torch.arange(end - len(c), end) for end, c in continuations]).to(self.device)
        tokens_P = torch.tensor([token for _, c in continuations for token in c], device=self.device)
        log_P, greedy_P = _token_scores(self._head, hidden_NH, places, tokens_P)
        sizes = [len(c) for _, c in continuations]
        return [
            (float(log.sum()), bool(greedy.all()))
            for log, greedy in zip(torch.split(log_P, sizes), torch.split(greedy_P, sizes), strict=True)
        ]


def _token_scores(
    head: OutputHead, hidden_NH: Tensor, place_P: Tensor, token_P: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token at its place, float64 `[P]`, and whether it is the likeliest there."""
    log_P = torch.full((len(token_P),), torch.nan, dtype=torch.float64)
    greedy_P = torch.zeros(len(token_P), dtype=torch.bool)
    for first in range(0, len(hidden_NH), TOKENS_PER_CHUNK):
        logits_NV = head.logits(hidden_NH[first : first + TOKENS_PER_CHUNK])
        here = (place_P >= first) & (place_P < first + len(logits_NV))
        place, token = place_P[here] - first, token_P[here]
        log_P[here.cpu()] = -token_losses(logits_NV[place], token).double().cpu()
        greedy_P[here.cpu()] = (logits_NV.max(-1).indices[place] == token).cpu()
    return log_P, greedy_P


@contextmanager
def _left_untied(model: PreTrainedModel) -> Iterator[None]:
    """Keeps lm-eval from tying embeddings that are stored apart, whatever the configuration says."""
    model.tie_weights = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del model.tie_weights


__all__ = ["ScoringModel"]
