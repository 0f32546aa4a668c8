"""Lets lm-eval score its requests on a model in memory, without saving and loading it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from methods.base import Placement
from methods.errors import InputError
from methods.placement.onloaded_forward import own_forward
from methods.structure.decoder import n_positions
from suite.evaluation.lm_eval_tasks.cut_contexts import RequestLength
from suite.evaluation.scoring.continuations import ContinuationScorer, GroupedRequests, Request, Score

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LogLikelihood = tuple[float, bool]
"""lm-eval's form of a score: the log-likelihood, and whether greedy decoding would generate it."""
ScoreKey = tuple[str | None, int | None, int]
"""The task of a request, the index of its question, and that of its option."""
Prepared = MutableMapping[tuple[str, int, str], Any]
"""Requests tokenized by one tokenizer: (their kind, the model's longest input, their digest) -> result."""
Result = TypeVar("Result")

_COPIES: WeakKeyDictionary[PreTrainedTokenizerBase, PreTrainedTokenizerBase] = WeakKeyDictionary()
"""A copy of each tokenizer, to which lm-eval adds a padding token; dropped together with the original."""


class ScoringModel(HFLM):  # type: ignore[misc]
    """Scores continuations in fp32, and computes logits only at the positions of continuations.

    lm-eval's own class computes log-probabilities over the vocabulary for every position, in the model's
    dtype; in bf16 this rounds a score to two or three digits. Here the head runs on continuations only, and a
    context with several one-token continuations, or the same request twice, runs once. The requests, their
    tokenization and cutting, and the generation of text are those of lm-eval.

    Scores are computed by `suite.evaluation.scoring.continuations`. When text is generated, onloaded layers
    are loaded once per token.

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
        scorer: computes the scores.
        scores: the scores of all options of questions so far.
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
        self.scorer = ContinuationScorer(model, placement, on_scored, on_remark)
        self._placement = placement
        self._prepared = prepared
        self.lengths: list[RequestLength] = []
        self.scores: dict[ScoreKey, Score] = {}

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[LogLikelihood]:
        """Like lm-eval's method, without its progress bar."""

        grouped = self._grouped(requests)
        self.lengths += [
            RequestLength(request.task_name, n_read, 0)
            for request, n_read in zip(requests, grouped.n_read, strict=True)
        ]
        scores = self.scorer.score(grouped)
        keys = ((request.task_name, request.doc_id, request.idx) for request in requests)
        self.scores.update(zip(keys, scores, strict=True))
        return [score[:2] for score in scores]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Like lm-eval's method, but for all windows at once; batches are formed later."""

        n_windows, grouped = self._grouped_windows(requests)
        scores = iter(self.scorer.score(grouped))
        return [sum(score.log_likelihood for score in islice(scores, n)) for n in n_windows]

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
        read = (int(tokens.max()) for tokens in grouped.inputs if len(tokens))
        asked = (token for of_input in grouped.continuations for tokens in of_input for token in tokens)
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
    ) -> list[LogLikelihood]:
        """Scores tokenized requests: (lm-eval's own key, context, continuation)."""
        grouped = GroupedRequests.of([request[1:] for request in requests], self.max_length)
        return [score[:2] for score in self.scorer.score(grouped)]


@contextmanager
def _left_untied(model: PreTrainedModel) -> Iterator[None]:
    """Keeps lm-eval from tying embeddings that are stored separately, whatever the configuration says."""
    model.tie_weights = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del model.tie_weights


__all__ = ["Prepared", "ScoringModel"]
