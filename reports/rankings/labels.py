"""How metrics that pages and papers both show are called and written, on pages and in papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.wording import SHARE, Unit


@dataclass(frozen=True)
class Label:
    """How one metric is called and written.

    Attributes:
        title: above its column on a page.
        unit: how its values are written.
        about: what it counts, below the title.
        paper: above its column in a paper, with its unit; None = no paper has it.
    """

    title: str
    unit: Unit
    about: str = ""
    paper: str | None = None


_NATS = "nats a token"

DIVERGENCES: Mapping[str, Label] = {
    "kl_divergence": Label("KL(dense ‖ pruned)", Unit(_NATS, places=4), paper="KL to dense, nats"),
    "top1_agreement": Label("Top-1 agreement", SHARE, paper="Top-1 agreement, %"),
}
"""Of a pruned model's next-token distributions, held against the dense model's."""

ANSWERS: Mapping[str, Label] = {
    "answers_as_dense": Label("As dense", SHARE, "share of answers", "As dense, %"),
    "answer_repetition": Label(
        "Repetition", SHARE, "share of an answer's 4-grams\nthat repeat an earlier one", "Repetition, %"
    ),
    "answer_dense_nll": Label(
        "Dense model's loss", Unit(_NATS, places=3), "on the answer", "Dense NLL, nats"
    ),
    "answer_tokens": Label("Length", Unit(places=1), "tokens"),
    "answers_ended": Label("Ended", SHARE, "share of answers that the\nmodel ended by itself"),
}
"""Of greedy answers to prompts."""

_RATE = Unit(places=1)

SPEEDS: Mapping[str, Label] = {
    "prefill_tokens_per_second": Label("Prefill", _RATE, "tokens/s", "Prefill, tokens/s"),
    "generation_tokens_per_second": Label("Generation", _RATE, "tokens/s", "Generation, tokens/s"),
    "sparse_prefill_tokens_per_second": Label(
        "Prefill, sparse kernels", _RATE, "tokens/s", "Sparse prefill, tokens/s"
    ),
    "sparse_generation_tokens_per_second": Label(
        "Generation, sparse kernels", _RATE, "tokens/s", "Sparse generation, tokens/s"
    ),
}
"""Of reading and writing."""

__all__ = ["ANSWERS", "DIVERGENCES", "SPEEDS", "Label"]
