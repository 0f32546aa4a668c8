"""Scores continuations of contexts: how likely a model finds them, and where they rank among all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, groupby, islice
from math import isnan, sqrt
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from methods.base import Placement
from methods.engine.layer_inputs import TokenBatch
from methods.errors import InputError
from suite.evaluation.scoring.decoder_pass import in_groups, running
from suite.evaluation.scoring.output_head import OutputHead
from suite.evaluation.scoring.perplexity import few_rows, token_losses
from suite.evaluation.scoring.shared_prefixes import (
    Row,
    longest_shared,
    separate_rows,
    shared_rows,
    token_batch,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

HOST_TOKENS, ACCELERATOR_TOKENS = 2048, 16384
"""Tokens per batch, padding included. Fixed, because batches of another shape round differently."""
TOKENS_PER_CHUNK = 256
WORTH_SHARING = 0.9
"""Common beginnings are shared if this leaves at most this share of the tokens."""
ROUNDING = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.25}
"""Maximum root mean square difference, in nats per token, between two ways of computing the same scores."""

Request = tuple[list[int], list[int]]
"""The tokens of the context and of the continuation."""


class Score(NamedTuple):
    """A model's opinion of one continuation."""

    log_likelihood: float
    """Sum over its tokens, in nats."""
    greedy: bool
    """Whether greedy decoding would generate it: every token is the likeliest one."""
    rank: int
    """The worst rank of its tokens among all tokens by probability; 1 = likeliest, ties share a rank."""
    n_tokens: int


@dataclass(frozen=True)
class GroupedRequests:
    """Tokenized requests, grouped by the model's input; the same for all models with one tokenizer.

    Attributes:
        inputs: distinct inputs, int32 `[n_tokens]` each. The longest come first, so that memory runs out
            early if it does; ties are ordered by content.
        indices: for each input, the indices (from 0) of the requests that use it.
        continuations: for each input, the tokens of these requests' continuations, in the same order.
        n_read: for each request, the number of tokens to read before any cut.
    """

    inputs: Sequence[NDArray[np.int32]]
    indices: Sequence[Sequence[int]]
    continuations: Sequence[Sequence[list[int]]]
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
            inputs=[np.array(tokens, dtype=np.int32) for tokens in inputs],
            indices=indices,
            continuations=[[requests[index][1] for index in of_input] for of_input in indices],
            n_read=[len(context) + len(continuation) - 1 for context, continuation in requests],
        )

    @property
    def n_last(self) -> list[int]:
        """For each input, the number of its last tokens that predict a continuation's tokens."""
        return [max(map(len, of_input)) for of_input in self.continuations]


@dataclass(frozen=True)
class _Job:
    """A row to read, and the continuations to score in it.

    Attributes:
        row: the row.
        continuations: for each input of the row, the tokens of its continuations.
        n_counted: number of requests that are reported as progress.
    """

    row: Row
    continuations: Sequence[Sequence[list[int]]]
    n_counted: int


Scores = list[list[Score]]
"""For each input of a row, the scores of its continuations."""
_ByInput = Sequence[tuple[int, list[Score]]]
"""Indices of inputs, and the scores of their continuations."""

_TREES_READ: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()
"""The longest input with which each model was seen to read trees of tokens correctly; 0 = it does not."""


class ContinuationScorer:
    """Scores continuations in fp32, and computes logits only at their positions.

    What inputs begin with in common is read once, as a tree of tokens (`shared_prefixes`), if the model's
    attention takes such trees. This is tried on the longest inputs: their scores must be those of inputs read
    one by one. Otherwise, and where there is little to share, each input is read by itself.

    Onloaded layers are loaded once per group of rows formed by `decoder_pass.in_groups`.

    Args:
        model: a causal language model in evaluation mode.
        placement: where its decoder layers are stored.
        on_scored: called with the number of scored requests after each batch; each counts as many times as
            `suite.evaluation.scoring.decoder_pass.steps_each` returns.
        on_remark: called with remarks for the reader: whether memory ran out.

    Attributes:
        tokens_per_batch: maximum number of tokens per batch, as far as memory has allowed so far.
        shares: whether to share common beginnings where that can be done.
        shared: whether the inputs scored last shared their beginnings.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        placement: Placement = Placement(),
        on_scored: Callable[[int], None] | None = None,
        on_remark: Callable[[str], None] | None = None,
    ) -> None:
        device = placement.device or model.device
        self.tokens_per_batch = HOST_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS
        self.shares = True
        self.shared = False
        self._model = model
        self._placement = placement
        self._on_scored = on_scored or _nobody
        self._on_remark = on_remark or _nobody
        self._remarks: set[str] = set()

    def score(self, requests: GroupedRequests) -> list[Score]:
        """Returns the scores of all requests, in their order."""
        separate = _jobs(requests, separate_rows(requests.inputs, requests.n_last))
        found = self._shared(requests, separate) if self.shares else None
        self.shared = found is not None
        scores: list[Score | None] = [None] * len(requests.n_read)
        for member, of_input in found or _by_input(separate, self._run(separate)):
            for index, score in zip(requests.indices[member], of_input, strict=True):
                scores[index] = score
        return [score for score in scores if score is not None]

    def _shared(self, requests: GroupedRequests, separate: Sequence[_Job]) -> _ByInput | None:
        """Returns the scores of each input, with common beginnings read once.

        None if there is little to share, or the model does not read trees of tokens correctly: a few inputs
        of a long row must have the same scores as in `separate`, each read by itself.
        """
        tried = _TREES_READ.get(self._model)
        if tried == 0 or max(map(len, requests.inputs), default=0) > longest_shared(self._model):
            return None
        jobs = _jobs(requests, shared_rows(requests.inputs, requests.n_last))
        branching = next((job for job in jobs if job.row.branches), None)
        n_tokens = sum(len(job.row.tokens) for job in jobs)
        if branching is None or n_tokens > WORTH_SHARING * sum(map(len, requests.inputs)):
            return None
        longest = len(jobs[0].row.tokens)
        if tried is not None and longest <= tried:
            return _by_input(jobs, self._run(jobs))
        few = (branching.row.branches[0], branching.row.branches[-1], branching.row.members[-1])
        trial = [replace(job, n_counted=0) for job in (branching, *(separate[member] for member in few))]
        _TREES_READ[self._model] = 0
        # Onloaded layers are loaded once for the trial and for all rows.
        together = jobs if self._placement.weights == "onload" else []
        try:
            found = self._run([*trial, *together])
        except Exception:  # models refuse arguments with errors of any class
            return None
        in_tree, alone = _by_input(trial[:1], found[:1]), _by_input(trial[1:], found[1 : len(trial)])
        if not self._agree(dict(in_tree), alone):
            return None
        _TREES_READ[self._model] = longest
        return _by_input(jobs, found[len(trial) :] or self._run(jobs))

    def _agree(self, shared: Mapping[int, list[Score]], separate: _ByInput) -> bool:
        """Whether inputs have the same scores in both, up to rounding."""
        squares = []
        for member, of_input in separate:
            for one, other in zip(shared[member], of_input, strict=True):
                values = one.log_likelihood, other.log_likelihood
                if not all(map(isnan, values)):
                    squares.append(((values[0] - values[1]) / one.n_tokens) ** 2)
        limit = ROUNDING.get(self._model.dtype, ROUNDING[torch.float32])
        return not squares or sqrt(sum(squares) / len(squares)) <= limit

    def _run(self, jobs: Sequence[_Job]) -> list[Scores]:
        """Returns the scores of each job, in order."""
        found: list[Scores] = []
        for group in in_groups(self._batches(jobs), self._model, self._placement):
            members = jobs[len(found) : len(found) + sum(map(len, group))]
            found += self._run_group(group, members)
        return found

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[TokenBatch]:
        """Yields batches of neighbouring rows, as large as memory has allowed so far."""
        first = 0
        while first < len(jobs):
            size = max(1, self.tokens_per_batch // len(jobs[first].row.tokens))
            # Trees and plain sequences, which are neighbours only in a trial, need other arguments.
            _, alike = next(groupby(jobs[first : first + size], lambda job: job.row.parents is None))
            batch = [job.row for job in alike]
            yield token_batch(batch)
            first += len(batch)

    def _run_group(self, group: Sequence[TokenBatch], jobs: Sequence[_Job]) -> list[Scores]:
        """Returns the scores of each job; their rows are those in the batches."""
        passing = cycle(job.n_counted for job in jobs)
        with running(
            self._model,
            group,
            self._placement,
            on_passed=lambda n: self._count(islice(passing, n)),
        ) as body:
            for remark in body.remarks:
                self._remark(remark)
            largest = max(batch.input_ids.numel() for batch in body.batches)
            if largest < max(batch.input_ids.numel() for batch in group):
                self.tokens_per_batch = largest

            def score(hidden_BTH: Tensor, rows: slice) -> list[Scores]:
                scores = _scores(body.head, hidden_BTH, jobs[rows])
                self._count(job.n_counted for job in jobs[rows])
                return scores

            return body.score(score, on_halved=self._halved)

    def _count(self, numbers: Iterable[int]) -> None:
        if n_scored := sum(numbers):
            self._on_scored(n_scored)

    def _halved(self, n_rows: int, seqlen: int) -> None:
        """Limits later batches to `n_rows` rows of `seqlen` tokens."""
        self.tokens_per_batch = n_rows * seqlen
        self._remark(f"memory ran out; it went on with batches of {self.tokens_per_batch} tokens")

    def _remark(self, remark: str) -> None:
        """Passes a remark on once, because several groups of rows may cause the same one."""
        if remark not in self._remarks:
            self._remarks.add(remark)
            self._on_remark(remark)


def _jobs(requests: GroupedRequests, rows: Sequence[Row]) -> list[_Job]:
    """Returns one job per row of these requests."""
    of_rows = [[requests.continuations[member] for member in row.members] for row in rows]
    return [_Job(row, asked, sum(map(len, asked))) for row, asked in zip(rows, of_rows, strict=True)]


def _by_input(jobs: Sequence[_Job], scores: Sequence[Scores]) -> _ByInput:
    return [
        pair
        for job, of_row in zip(jobs, scores, strict=True)
        for pair in zip(job.row.members, of_row, strict=True)
    ]


@torch.inference_mode()
def _scores(head: OutputHead, hidden_BTH: Tensor, jobs: Sequence[_Job]) -> list[Scores]:
    """Returns the scores of all continuations of each row; each ends one token after its input."""
    device = hidden_BTH.device
    hidden, places, tokens = [], [], []
    n_hidden = 0
    for hidden_TH, job in zip(hidden_BTH, jobs, strict=True):
        # The end of a context predicts the first token of all its options.
        distinct, indices = np.unique(np.concatenate(job.row.places), return_inverse=True)
        hidden.append(hidden_TH[torch.from_numpy(distinct).to(device)])
        end = 0
        for of_input, continuations in zip(job.row.places, job.continuations, strict=True):
            end += len(of_input)
            for continuation in continuations:
                places.append(n_hidden + indices[end - len(continuation) : end])
                tokens.append(continuation)
        n_hidden += len(distinct)
    place_P = torch.from_numpy(np.concatenate(places)).to(device)
    token_P = torch.tensor([token for continuation in tokens for token in continuation]).to(device)
    log_P, greedy_P, rank_P = _token_scores(head, torch.cat(hidden), place_P, token_P)
    sizes = list(map(len, tokens))
    of_tokens = (torch.split(values, sizes) for values in (log_P, greedy_P, rank_P))
    scores = (
        Score(float(log.sum()), bool(greedy.all()), int(rank.max()), len(log))
        for log, greedy, rank in zip(*of_tokens, strict=True)
    )
    return [[list(islice(scores, len(of_input))) for of_input in job.continuations] for job in jobs]


def _token_scores(
    head: OutputHead, hidden_NH: Tensor, place_P: Tensor, token_P: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns for each token, `[P]`, its log-probability at its place (float64), whether it is the likeliest,
    and its rank (int64).
    """
    log_P = torch.full((len(token_P),), torch.nan, dtype=torch.float64)
    greedy_P = torch.zeros(len(token_P), dtype=torch.bool)
    rank_P = torch.zeros(len(token_P), dtype=torch.int64)
    for first in range(0, len(hidden_NH), TOKENS_PER_CHUNK):
        logits_NV = head.logits(hidden_NH[first : first + TOKENS_PER_CHUNK])
        here = (place_P >= first) & (place_P < first + len(logits_NV))
        few = zip(few_rows(place_P[here] - first), few_rows(token_P[here]), strict=True)
        judged = zip(*(_judged(logits_NV[place], token) for place, token in few), strict=True)
        for of_all, of_few in zip((log_P, greedy_P, rank_P), judged, strict=True):
            of_all[here.cpu()] = torch.cat(of_few).cpu()
    return log_P, greedy_P, rank_P


def _judged(logits_PV: Tensor, token_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the same as `_token_scores` for the logits of each token's place, on their device."""
    own_P1 = logits_PV.gather(1, token_P[:, None])
    # Counted so that NaN makes no token look likely.
    rank_P = 1 + logits_PV.shape[-1] - (logits_PV <= own_P1).sum(-1)
    return -token_losses(logits_PV, token_P).double(), logits_PV.argmax(-1) == token_P, rank_P


def _nobody(value: object) -> None:
    """Ignores its argument: the default for callbacks that the caller did not give."""


__all__ = ["ContinuationScorer", "GroupedRequests", "Request", "Score"]
