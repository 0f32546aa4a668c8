"""Lets lm-eval score its requests on a model in memory, without saving and loading it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, cycle, islice
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from methods.base import Placement
from methods.engine.layer_inputs import TokenBatch
from methods.errors import InputError
from methods.placement.onloaded_forward import own_forward
from methods.structure.decoder import n_positions
from suite.evaluation.lm_eval_tasks.cut_contexts import RequestLength
from suite.evaluation.scoring.decoder_pass import in_groups, running
from suite.evaluation.scoring.output_head import OutputHead
from suite.evaluation.scoring.perplexity import token_losses

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HOST_TOKENS, ACCELERATOR_TOKENS = 2048, 16384
"""Tokens per batch, padding included. Fixed, because batches of another shape round differently."""
TOKENS_PER_CHUNK = 256

Request = tuple[list[int], list[int]]
"""The tokens of the context and of the continuation."""
Tokens = Sequence[int]
Score = tuple[float, bool]
"""A continuation's log-likelihood, and whether greedy decoding would generate it."""
Prepared = MutableMapping[tuple[str, int, str], Any]
"""Requests tokenized by one tokenizer: (their kind, the model's longest input, their digest) -> result."""
Result = TypeVar("Result")

_COPIES: WeakKeyDictionary[PreTrainedTokenizerBase, PreTrainedTokenizerBase] = WeakKeyDictionary()
"""A copy of each tokenizer, to which lm-eval adds a padding token; dropped together with the original."""


@dataclass(frozen=True)
class GroupedRequests:
    """Tokenized requests, grouped by the model's input; the same for all models with one tokenizer.

    Attributes:
        inputs: distinct inputs, int32 `[n_tokens]` each. The longest come first, so that memory runs out
            early if it does; ties are ordered by content.
        indices: for each input, the indices (from 0) of the requests that use it.
        asked: for each input, the tokens of these requests' continuations, in the same order.
        n_read: for each request, the number of tokens to read before any cut.
    """

    inputs: Sequence[Tokens]
    indices: Sequence[Sequence[int]]
    asked: Sequence[Sequence[list[int]]]
    n_read: Sequence[int]

    @classmethod
    def of(cls, requests: Sequence[Request], n_positions: int) -> GroupedRequests:
        """Groups requests, each cut to at most `n_positions` tokens.

        Raises:
            InputError: a continuation is empty or longer than `n_positions`.
        """
        by_input: dict[tuple[int, ...], list[int]] = {}
        for index, (context, continuation) in enumerate(requests):
            if not 0 < len(continuation) <= n_positions:
                raise InputError(
                    f"an answer is {len(continuation)} tokens long; this model can score 1 to {n_positions}"
                )
            # Cut from the left like lm-eval. The last token is predicted but not read.
            tokens = tuple((context + continuation)[-(n_positions + 1) :][:-1])
            by_input.setdefault(tokens, []).append(index)
        inputs = sorted(by_input, key=lambda tokens: (-len(tokens), tokens))
        indices = [by_input[tokens] for tokens in inputs]
        return cls(
            # Arrays take a tenth of a list's memory, which matters because they are kept, and pad faster.
            inputs=[cast("Tokens", np.array(tokens, dtype=np.int32)) for tokens in inputs],
            indices=indices,
            asked=[[requests[index][1] for index in of_input] for of_input in indices],
            n_read=[len(context) + len(continuation) - 1 for context, continuation in requests],
        )


class ScoringModel(HFLM):  # type: ignore[misc]
    """Scores continuations in fp32, and computes logits only at the positions of continuations.

    lm-eval's own class computes log-probabilities over the vocabulary for every position, in the model's
    dtype; in bf16 this rounds a score to two or three digits. Here the head runs on continuations only, and a
    context with several one-token continuations, or the same request twice, runs once. The requests, their
    tokenization and cutting, and the generation of text are those of lm-eval.

    Onloaded layers are loaded once per group of requests formed by `decoder_pass.in_groups`; when text is
    generated, once per token.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer; lm-eval works on a copy, made once, to which it adds a padding token.
        placement: where its decoder layers are stored.
        on_scored: called with the number of scored requests after each batch; each counts as many times as
            `suite.evaluation.scoring.decoder_pass.steps_each` returns.
        on_remark: called with remarks for the reader: whether memory ran out.
        prepared: tokenized requests kept from an earlier model with the same tokenizer; missing ones are
            added. None = keep nothing.

    Attributes:
        lengths: lengths, before any cut, of all requests so far whose context lm-eval may cut.
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
        prepared: Prepared | None = None,
    ) -> None:
        # lm-eval puts BOS or EOS before a request without a context, and fails if a tokenizer has neither.
        marked = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
        if tokenizer not in _COPIES:
            _COPIES[tokenizer] = copy.deepcopy(tokenizer)
        with _left_untied(model):
            super().__init__(
                pretrained=model,
                tokenizer=_COPIES[tokenizer],
                batch_size=8,
                prefix_token_id=None if marked else 0,
                max_length=n_positions(model),
            )
        if self.tokenizer.pad_token_id >= model.get_input_embeddings().weight.shape[0]:
            # The attention mask hides padding, but it needs an embedding.
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(0)
        self._device = placement.device or model.device
        self.tokens_per_batch = HOST_TOKENS if self.device.type == "cpu" else ACCELERATOR_TOKENS
        self._placement = placement
        self._on_scored = on_scored or _nobody
        self._on_remark = on_remark or _nobody
        self._remarks: set[str] = set()
        self._prepared = prepared
        self.lengths: list[RequestLength] = []

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[Score]:
        """Like lm-eval's method, without its progress bar."""

        grouped = self._grouped(requests)
        self.lengths += [
            RequestLength(request.task_name, n_read, 0)
            for request, n_read in zip(requests, grouped.n_read, strict=True)
        ]
        return self._score(grouped)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Like lm-eval's method, but for all windows at once; batches are formed later."""

        n_windows, grouped = self._grouped_windows(requests)
        scores = iter(self._score(grouped))
        return [sum(value for value, _ in islice(scores, n)) for n in n_windows]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Runs lm-eval's method with the model's own forward and without its progress bar."""
        with own_forward(self.model, self._placement):
            written: list[str] = super().generate_until(requests, disable_tqdm=True)
        self.lengths += self._lengths_with_answers(requests)
        return written

    def prepare(self, kind: str, requests: Sequence[Instance]) -> None:
        """Tokenizes requests, and checks that the model can process them; its weights are not used.

        Args:
            kind: lm-eval's name for this kind of request.
            requests: the requests, in the order in which they will be scored.

        Raises:
            InputError: a token has no embedding, or an answer needs more positions than the model has.
        """
        if kind == "loglikelihood":
            self._check_tokens(self._grouped(requests))
        elif kind == "loglikelihood_rolling":
            self._check_tokens(self._grouped_windows(requests)[1])
        elif kind == "generate_until":
            if self.eot_token_id is None:
                raise InputError(
                    "the model has to generate answers, but its tokenizer has no end token (eos_token)"
                )
            for length in self._lengths_with_answers(requests):
                if length.n_written >= self.max_length:
                    raise InputError(
                        f"{length.n_written} tokens are reserved for an answer (max_gen_toks), but the model "
                        f"has {self.max_length} positions for question and answer"
                    )
            prompts = [request.args[0] for request in requests]
            self._check_highest(max(map(max, filter(None, map(self.tok_encode, prompts))), default=0))

    def _check_tokens(self, grouped: GroupedRequests) -> None:
        read = (int(tokens.max()) for tokens in map(np.asarray, grouped.inputs) if len(tokens))
        asked = (token for of_input in grouped.asked for tokens in of_input for token in tokens)
        self._check_highest(max(chain(read, asked), default=0))

    def _check_highest(self, token: int) -> None:
        n_tokens = self.model.get_input_embeddings().weight.shape[0]
        if token >= n_tokens:
            raise InputError(
                f"the tokenizer makes token {token}, but {type(self.model).__name__} has embeddings for "
                f"{n_tokens} tokens only: the tokenizer belongs to another model, or the embedding was cut"
            )

    def _grouped(self, requests: Sequence[Instance]) -> GroupedRequests:
        def group() -> GroupedRequests:
            return GroupedRequests.of([self._tokenized(*r.args) for r in requests], self.max_length)

        return self._once("loglikelihood", requests, group)

    def _grouped_windows(self, requests: Sequence[Instance]) -> tuple[list[int], GroupedRequests]:
        """Returns the number of windows of each request, and all windows."""

        def group() -> tuple[list[int], GroupedRequests]:
            windows = [self._windows(*request.args) for request in requests]
            return list(map(len, windows)), GroupedRequests.of([*chain(*windows)], self.max_length)

        return self._once("loglikelihood_rolling", requests, group)

    def _lengths_with_answers(self, requests: Sequence[Instance]) -> list[RequestLength]:
        return self._once("generate_until", requests, lambda: list(map(self._length_with_answer, requests)))

    def _once(self, kind: str, requests: Sequence[Instance], prepare: Callable[[], Result]) -> Result:
        """Returns the result of `prepare`, reusing that of an earlier model with the same requests."""
        if self._prepared is None:
            return prepare()
        digest = hashlib.sha256(repr([request.args for request in requests]).encode(errors="replace"))
        key = (kind, self.max_length, digest.hexdigest())
        if key not in self._prepared:
            self._prepared[key] = prepare()
        result: Result = self._prepared[key]
        return result

    def _tokenized(self, context: str, continuation: str) -> Request:
        """Tokenizes a request as lm-eval's `loglikelihood` does."""
        if context:
            pair: Request = self._encode_pair(context, continuation)
            return pair
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        # The prefix token replaces the empty context, unless the continuation begins with it.
        prefix = self.prefix_token_id
        return (tokens[:1], tokens[1:]) if tokens[0] == prefix else ([prefix], tokens)

    def _windows(self, text: str) -> list[Request]:
        """Cuts a text as lm-eval's `loglikelihood_rolling` does: each token is predicted once."""
        windows = get_rolling_token_windows(
            self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
        )
        return list(map(make_disjoint_window, windows))

    def _length_with_answer(self, request: Instance) -> RequestLength:
        """Returns the length of a request with a generated answer, by itself: lm-eval pads whole batches."""
        prompt, settings = request.args
        n_written = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
        return RequestLength(request.task_name, self.tok_batch_encode([prompt])[0].shape[1], n_written)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[Score]:
        """Scores tokenized requests: (lm-eval's own key, context, continuation)."""
        return self._score(GroupedRequests.of([request[1:] for request in requests], self.max_length))

    def _score(self, requests: GroupedRequests) -> list[Score]:
        """Returns the scores of all requests, in their order."""
        found: list[Score] = [(0.0, False)] * len(requests.n_read)
        n_done = 0
        for group in in_groups(self._batches(requests.inputs), self.model, self._placement):
            members = slice(n_done, n_done + sum(map(len, group)))
            scored = self._score_group(group, requests.inputs[members], requests.asked[members])
            for indices, scores in zip(requests.indices[members], scored, strict=True):
                for index, score in zip(indices, scores, strict=True):
                    found[index] = score
            n_done = members.stop
        return found

    def _batches(self, inputs: Sequence[Tokens]) -> Iterator[TokenBatch]:
        """Yields batches of neighbouring inputs, the longest first, as large as memory has allowed so far."""
        first = 0
        while first < len(inputs):
            batch = inputs[first : first + max(1, self.tokens_per_batch // len(inputs[first]))]
            yield TokenBatch.padded(batch)
            first += len(batch)

    def _score_group(
        self, group: Sequence[TokenBatch], inputs: Sequence[Tokens], asked: Sequence[Sequence[list[int]]]
    ) -> list[list[Score]]:
        """Returns the scores of all continuations of each input; `inputs` are those in the batches."""
        passing = cycle(map(len, asked))  # number of requests per input
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
        """Limits later batches to `n_inputs` inputs of `seqlen` tokens."""
        self.tokens_per_batch = n_inputs * seqlen
        self._remark(f"memory ran out; it went on with batches of {self.tokens_per_batch} tokens")

    def _remark(self, remark: str) -> None:
        """Passes a remark on once, because several groups of requests may cause the same one."""
        if remark not in self._remarks:
            self._remarks.add(remark)
            self._on_remark(remark)


@torch.inference_mode()
def _scores(
    head: OutputHead, hidden_BTH: Tensor, lengths: Sequence[int], asked: Sequence[Sequence[list[int]]]
) -> list[list[Score]]:
    """Returns the scores of all continuations of each input; each ends one token after its input."""
    n_positions = [max(map(len, continuations)) for continuations in asked]
    hidden_NH = torch.cat(
        [
            hidden_TH[length - n : length]
            for hidden_TH, length, n in zip(hidden_BTH, lengths, n_positions, strict=True)
        ]
    )
    # Several continuations may have different tokens at one position: (index into hidden_NH, token) pairs.
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
    """Returns each token's log-probability at its place, float64 `[P]`, and whether it is the likeliest."""
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
    """Keeps lm-eval from tying embeddings that are stored separately, whatever the configuration says."""
    model.tie_weights = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del model.tie_weights


def _nobody(value: object) -> None:
    """Ignores its argument: the default for callbacks that the caller did not give."""


__all__ = ["GroupedRequests", "Prepared", "ScoringModel"]
