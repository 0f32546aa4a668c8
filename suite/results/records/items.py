"""What a record holds item by item, for intervals and for pairing: windows, questions and answers."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from suite.cell import Spec


class ItemRow(NamedTuple):
    """One value of one item, a row of the side file."""

    protocol: str
    metric: str
    """`nll`, `kl`, `agreement`, or a task's."""
    item: int
    """Its place, from 0."""
    item_digest: str
    """Of a window's tokens, or lm-eval's `doc_hash`: equal where two runs measured the same item."""
    prompt_hash: str | None
    """lm-eval's, of what a question looked like; None for windows."""
    target_hash: str | None
    value: float | None
    """None where it was not finite."""
    n_tokens: int | None
    """Predicted tokens of a window; None for questions."""


class WindowLosses(Spec):
    """The loss of every evaluation window of one protocol, for intervals and pairing."""

    protocol: str
    corpus_digest: str
    """SHA-256 of the windows' token ids `[n_windows, seqlen]`."""
    corpus_revision: str
    """Version or revision of the corpus, as published."""
    seqlen: int
    limit: int | None
    """The cap on tokens that was asked for; None = the whole corpus."""
    n_first: int = Field(0, ge=0)
    """Tokens at the start of each window that the tokenizer puts there; they are never predicted."""
    nll: tuple[float | None, ...]
    """Mean negative log-likelihood (nats) of the predicted tokens, a value a window; None where it was not
    finite."""

    @property
    def n_predicted(self) -> int:
        """Predicted tokens of a window: all but those at its start that nothing stands before."""
        return self.seqlen - max(1, self.n_first)


class WindowDivergence(Spec):
    """How far the next-token distributions are from the dense model's, window by window."""

    protocol: str
    """Of the windows, whose tokens `Record.windows` identifies."""
    kl: tuple[float | None, ...]
    """Mean KL(dense || pruned) of the predicted tokens, nats; None where it was not finite."""
    agreement: tuple[float | None, ...]
    """Share of them for which both find the same token likeliest."""


class TaskOutcomes(Spec):
    """What a task was asked and, question by question, whether the answer was right."""

    task: str
    protocol: str
    """`boolq-0shot`."""
    version: str
    """The task file's own."""
    num_fewshot: int
    limit: int | None
    """The cap on questions that was asked for; None = all."""
    n: int
    docs_digest: str
    """SHA-256 over the task's definition and its questions' data: another one makes a record stale."""
    items_digest: str
    """SHA-256 over lm-eval's hashes of questions, prompts and answers: equal where the same was asked."""
    metric: str
    """Which one `outcomes` is about."""
    outcomes: str | None
    """A character a question, `1` where it was answered rightly and `0` where not; None where the metric
    grades otherwise. The side file has the values of all metrics."""


class AnswerText(Spec):
    """The greedy answer to one prompt."""

    id: str
    kind: str
    prompt: str
    text: str
    n_tokens: int
    ended: bool
    """Whether the model stopped by itself."""
    parted_at: int | None = None
    """The first token that differs from the dense model's answer; None where none does, and for the dense."""
    repetition: float | None = None
    """Share of its 4-grams of tokens that repeat an earlier one; None where it is shorter."""
    dense_nll: float | None = None
    """Mean negative log-likelihood, nats a token, that the dense model gives it; None where not measured."""


class AnswerSet(Spec):
    """The answers to a set of prompts."""

    prompts: str
    """`built-in`, or the file."""
    prompts_digest: str
    max_new_tokens: int
    chat_template: bool
    """Whether the prompts were wrapped in the model's own chat template."""
    batch_size: int
    """Prompts answered at once; in half precision another number alone makes answers part."""
    answers: tuple[AnswerText, ...]

    @property
    def protocol(self) -> str:
        """Under which its metrics stand, e.g. `built-in-greedy48`."""
        return f"{self.prompts}-greedy{self.max_new_tokens}"


__all__ = ["AnswerSet", "AnswerText", "ItemRow", "TaskOutcomes", "WindowDivergence", "WindowLosses"]
