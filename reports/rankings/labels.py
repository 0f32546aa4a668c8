"""Titles and units of the metrics that are shown both on pages and in papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.wording import SHARE, Unit


@dataclass(frozen=True)
class Label:
    """Title and unit of one metric.

    Attributes:
        title: heading of its column on a page.
        unit: how its values are written.
        about: what it counts, shown below the title.
        paper: heading of its column in a paper, with the unit; None if papers do not show it.
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
"""Metrics that compare a pruned model's next-token distributions with the dense model's."""

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
"""Metrics of greedy answers to prompts."""

PRODUCTION: Mapping[str, Label] = {
    "production_accuracy": Label("Produced", SHARE, "share of right answers", "Produced, %"),
    "answer_rank": Label("Rank", Unit(places=1), "of the right answer", "Answer rank"),
    "answer_token_loss": Label("Loss", Unit(_NATS, places=3), "of the right answer", "Answer NLL, nats"),
}
"""Metrics of the right answers to a task's questions, as a model itself would produce them."""

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
"""Metrics of prefill and generation speed."""

__all__ = ["ANSWERS", "DIVERGENCES", "PRODUCTION", "SPEEDS", "Label"]
