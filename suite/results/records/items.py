"""Per-item data of a record, used for intervals and pairing: windows, questions and answers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from suite.cell import Spec


class ItemRow(NamedTuple):
    """One value of one item: a row of the side file."""

    protocol: str
    metric: str
    """`nll`, `kl`, `agreement`, or a metric of a task."""
    item: int
    """Index of the item, from 0."""
    item_digest: str
    """Digest of a window's tokens, or lm-eval's `doc_hash`; equal if two runs measured the same item."""
    prompt_hash: str | None
    """lm-eval's hash of the prompt of a question; None for windows."""
    target_hash: str | None
    value: float | None
    """The value; None if it was not finite."""
    n_tokens: int | None
    """Number of predicted tokens of a window; None for questions."""


class WindowLosses(Spec):
    """The loss of every evaluation window of one protocol, for intervals and pairing."""

    protocol: str
    corpus_digest: str
    """SHA-256 of the windows' token ids `[n_windows, seqlen]`."""
    corpus_revision: str
    """Version or revision of the corpus, as published."""
    seqlen: int
    limit: int | None
    """The requested limit on the number of tokens; None = the whole corpus."""
    n_first: int = Field(0, ge=0)
    """Number of tokens that the tokenizer puts at the start of each window; they are never predicted."""
    nll: tuple[float | None, ...]
    """Mean negative log-likelihood of the predicted tokens in nats, one value per window; None if it was not
    finite."""

    @property
    def n_predicted(self) -> int:
        """Number of predicted tokens per window: all except the first one, or the first `n_first` ones."""
        return self.seqlen - max(1, self.n_first)


class WindowDivergence(Spec):
    """Divergence of the next-token distributions from the dense model's, per window."""

    protocol: str
    """Protocol of the windows; `Record.windows` identifies their tokens."""
    kl: tuple[float | None, ...]
    """Mean KL(dense || pruned) over the predicted tokens in nats, per window; None if it was not finite."""
    agreement: tuple[float | None, ...]
    """Share of the predicted tokens for which both models give the same token the highest probability."""


class RightAnswers(Spec):
    """How a model itself would produce the right answers to a task's questions.

    A right answer is produced if greedy decoding after the question generates exactly its tokens. If a
    question has several right answers, its values are the best of theirs. Where the options are contexts,
    it is what follows the right one.
    """

    produced: str
    """One character per question, `1` if its right answer is produced and `0` otherwise."""
    ranks: tuple[int, ...]
    """Rank of the right answer among all tokens by probability, from 1; of its least likely token if it has
    several, so that a rank of 1 is a produced answer."""
    losses: tuple[float | None, ...]
    """Mean negative log-likelihood of the right answer's tokens in nats; None if it was not finite."""


class TaskOutcomes(Spec):
    """The questions of a task, and for each question whether the answer was right."""

    task: str
    protocol: str
    """Name of the protocol, e.g. `boolq-0shot`."""
    version: str
    """Version given in the task file."""
    num_fewshot: int
    limit: int | None
    """The requested limit on the number of questions; None = all."""
    n: int
    docs_digest: str
    """SHA-256 over the task's definition and its questions' data; if it changes, records become stale."""
    items_digest: str
    """SHA-256 over lm-eval's hashes of questions, prompts and answers; equal for the same questions."""
    metric: str
    """The metric that `outcomes` refers to."""
    outcomes: str | None
    """One character per question, `1` for a right answer and `0` for a wrong one; None if the metric has
    other values. The side file has the values of all metrics."""
    right_answers: RightAnswers | None = None
    """None if the task's answers are generated, not given, and in older records."""
    contexts: Literal["shared", "separate"] | None = None
    """Whether the options of a question were read together, its text once, or each with its text; the scores
    are equal up to rounding. None if nothing was scored, and in older records."""


class AnswerText(Spec):
    """The greedy answer to one prompt."""

    id: str
    kind: str
    prompt: str
    text: str
    n_tokens: int
    ended: bool
    """Whether the model ended the answer by itself."""
    parted_at: int | None = None
    """Index of the first token that differs from the dense model's answer; None if no token differs, and for
    the dense model."""
    repetition: float | None = None
    """Share of the answer's 4-grams of tokens that repeat an earlier one; None if it has fewer tokens."""
    dense_nll: float | None = None
    """Mean negative log-likelihood of the answer under the dense model, in nats per token; None if it was
    not measured."""


class AnswerSet(Spec):
    """The answers to a set of prompts."""

    prompts: str
    """`built-in`, or the path of the file."""
    prompts_digest: str
    max_new_tokens: int
    chat_template: bool
    """Whether the prompts were wrapped in the model's own chat template."""
    batch_size: int
    """Number of prompts answered at once; in half precision, a different number alone changes answers."""
    answers: tuple[AnswerText, ...]

    @property
    def protocol(self) -> str:
        """Protocol of the answers' metrics, e.g. `built-in-greedy48`."""
        return f"{self.prompts}-greedy{self.max_new_tokens}"


__all__ = [
    "AnswerSet",
    "AnswerText",
    "ItemRow",
    "RightAnswers",
    "TaskOutcomes",
    "WindowDivergence",
    "WindowLosses",
]
