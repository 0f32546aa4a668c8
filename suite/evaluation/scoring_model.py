"""lm-eval's view of a model in memory: its requests are scored on the spot, without saving and loading."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor

from methods.base import Placement
from methods.errors import PruningError
from methods.own_forward import own_forward
from methods.recorder import TokenBatch
from suite.evaluation.body import in_groups, running
from suite.evaluation.cut_contexts import RequestLength
from suite.evaluation.head import OutputHead
from suite.evaluation.perplexity import token_losses

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HOST_TOKENS, ACCELERATOR_TOKENS = 2048, 16384
"""In a batch, padding included. Fixed, because batches of another shape round differently."""
TOKENS_PER_CHUNK = 256

Request = tuple[Any, list[int], list[int]]
"""lm-eval's own key, the context's tokens and the continuation's."""
Tokens = tuple[int, ...]
Score = tuple[float, bool]
"""A continuation's log-likelihood, and whether greedy decoding would have written it."""


class ScoringModel(HFLM):  # type: ignore[misc]
    """Scores continuations in fp32 at the positions that are asked for, and nowhere else.

    lm-eval's own class forms log-probabilities over the vocabulary for every position, in the model's dtype;
    in bf16 that alone rounds a score to two or three digits. Here the head runs on continuations only, and a
    context with several one-token continuations, or the same request twice, runs once. What is asked, how it
    is tokenized and cut, and all that generates text, is lm-eval's own.

    Layers that are onloaded visit the device once for as many requests as `suite.evaluation.body.in_groups`
    puts together; where text is generated, once a token.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer; it is copied, since lm-eval gives it a padding token.
        placement: where its decoder layers are.
        on_scored: called with the number of requests that were scored, batch by batch; of each as often as
            `suite.evaluation.body.steps_each` says.
        on_remark: called with what a reader should know: where memory ran out.

    Attributes:
        lengths: of every request so far whose context lm-eval may cut, as it was before that.
    """

    batch_size_per_gpu: int

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        placement: Placement = Placement(),
        on_scored: Callable[[int], None] | None = None,
        on_remark: Callable[[str], None] | None = None,
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
        self._device = placement.device or model.device
        self.tokens_per_batch = HOST_TOKENS if self.device.type == "cpu" else ACCELERATOR_TOKENS
        self._placement = placement
        self._on_scored = on_scored or _nobody
        self._on_remark = on_remark or _nobody
        self._told: set[str] = set()
        self.lengths: list[RequestLength] = []
        self._n_read: list[int] = []

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[Score]:
        """As lm-eval's, without its bar."""
        scored: list[Score] = super().loglikelihood(requests, disable_tqdm=True)
        self.lengths += [
            RequestLength(request.task_name, n_read, 0)
            for request, n_read in zip(requests, self._n_read, strict=True)
        ]
        return scored

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """As lm-eval's, but all windows at once: batches are made below."""
        generating, self.batch_size_per_gpu = self.batch_size_per_gpu, sys.maxsize
        try:
            scored: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        finally:
            self.batch_size_per_gpu = generating
        return scored

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """lm-eval's, by the model's own forward."""
        with own_forward(self.model, self._placement):
            written: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        self.lengths += map(self._length_with_answer, requests)
        return written

    def _length_with_answer(self, request: Instance) -> RequestLength:
        """What a request takes that has its answer written, each by itself: lm-eval pads and cuts a batch."""
        prompt, settings = request.args
        n_written = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
        return RequestLength(request.task_name, self.tok_batch_encode([prompt])[0].shape[1], n_written)

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Score]:
        """The scores of all requests, in their order."""
        self._n_read = [len(context) + len(continuation) - 1 for _, context, continuation in requests]
        of_input: dict[Tokens, list[int]] = {}
        for place, (_, context, continuation) in enumerate(requests):
            if not 0 < len(continuation) <= self.max_length:
                raise PruningError(
                    f"a task asks for an answer of {len(continuation)} tokens, and the model has "
                    f"{self.max_length} positions"
                )
            # As lm-eval cuts it: from the left, and the last token is only predicted.
            tokens = tuple((context + continuation)[-(self.max_length + 1) :][:-1])
            of_input.setdefault(tokens, []).append(place)
        # The longest first, so that memory runs out at once if it does; ties by content, for good order.
        inputs = sorted(of_input, key=lambda tokens: (-len(tokens), tokens))
        asked = [[requests[place][2] for place in of_input[tokens]] for tokens in inputs]
        found: list[Score] = [(0.0, False)] * len(requests)
        n_done = 0
        for group in in_groups(self._batches(inputs), self.model, self._placement):
            members = slice(n_done, n_done + sum(map(len, group)))
            scored = self._score_group(group, inputs[members], asked[members])
            for tokens, scores in zip(inputs[members], scored, strict=True):
                for place, score in zip(of_input[tokens], scores, strict=True):
                    found[place] = score
            n_done = members.stop
        return found

    def _batches(self, inputs: Sequence[Tokens]) -> Iterator[TokenBatch]:
        """Neighbouring inputs, the longest first, as many as memory has allowed so far."""
        first = 0
        while first < len(inputs):
            batch = inputs[first : first + max(1, self.tokens_per_batch // len(inputs[first]))]
            yield TokenBatch.padded(batch)
            first += len(batch)

    def _score_group(
        self, group: Sequence[TokenBatch], inputs: Sequence[Tokens], asked: Sequence[Sequence[list[int]]]
    ) -> list[list[Score]]:
        """The scores of all continuations of each input; the inputs are those of the batches of `group`."""
        passing = cycle(map(len, asked))  # requests that an input stands for
        with running(
            self.model,
            group,
            self._placement,
            on_passed=lambda n: self._on_scored(sum(islice(passing, n))),
        ) as body:
            for remark in body.remarks:
                self._remark(remark)
            largest = max(batch.input_ids.numel() for batch in body.batches)
            if largest < max(batch.input_ids.numel() for batch in group):
                self.tokens_per_batch = largest

            def score(hidden_BTH: Tensor, rows: slice) -> list[list[Score]]:
                scores = _scores(body.head, hidden_BTH, list(map(len, inputs[rows])), asked[rows])
                self._on_scored(sum(map(len, scores)))
                return scores

            return body.score(score, on_halved=self._halved)

    def _halved(self, n_inputs: int, seqlen: int) -> None:
        """From here on no batch is larger than `n_inputs` of `seqlen` tokens."""
        self.tokens_per_batch = n_inputs * seqlen
        self._remark(f"memory ran out; it went on with batches of {self.tokens_per_batch} tokens")

    def _remark(self, remark: str) -> None:
        """Tells it once: another group of questions may find out the same."""
        if remark not in self._told:
            self._told.add(remark)
            self._on_remark(remark)


@torch.inference_mode()
def _scores(
    head: OutputHead, hidden_BTH: Tensor, lengths: Sequence[int], asked: Sequence[Sequence[list[int]]]
) -> list[list[Score]]:
    """The scores of all continuations of each input: each ends one token after its input does."""
    n_positions = [max(map(len, continuations)) for continuations in asked]
    hidden_NH = torch.cat(
        [
            hidden_TH[length - n : length]
            for hidden_TH, length, n in zip(hidden_BTH, lengths, n_positions, strict=True)
        ]
    )
    # Several continuations may ask for other tokens at one position: (place in hidden_NH, token) pairs.
    ends = list(accumulate(n_positions))
    continuations = [(end, c) for end, of_input in zip(ends, asked, strict=True) for c in of_input]
    place_P = torch.cat([torch.arange(end - len(c), end) for end, c in continuations])
    token_P = torch.tensor([token for _, c in continuations for token in c])
    device = hidden_NH.device
    log_P, greedy_P = _token_scores(head, hidden_NH, place_P.to(device), token_P.to(device))
    sizes = [len(c) for _, c in continuations]
    scores = (
        (float(log.sum()), bool(greedy.all()))
        for log, greedy in zip(torch.split(log_P, sizes), torch.split(greedy_P, sizes), strict=True)
    )
    return [list(islice(scores, len(of_input))) for of_input in asked]


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


def _nobody(told: object) -> None:
    """Hears of what nobody asked for."""


__all__ = ["ScoringModel"]
