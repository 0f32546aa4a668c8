"""What a ranking over models consists of; `scoring` fills it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.site.records.site_record import SiteRecord
from reports.wording import pattern_name, visible

Mark = Literal["best", "tied", "only", ""]


@dataclass(frozen=True, order=True)
class BoardKey:
    """What all records of a board share."""

    pattern: str
    protocol: str
    corpus_revision: str
    seqlen: int
    limit: int
    """The cap on tokens; 0 = the whole corpus."""
    dtype: str

    @property
    def name(self) -> str:
        """All of it in one line, from which its page is named."""
        limit = f"first {self.limit}" if self.limit else "whole"
        parts = (self.pattern, self.dtype, self.protocol, limit, self.corpus_revision, f"s{self.seqlen}")
        return " ".join(parts)


@dataclass(frozen=True, order=True)
class Subject:
    """A model of a board: its weights, and the tokens of the text as its tokenizer has them."""

    model: str
    weight_digest: str
    corpus_digest: str
    n_windows: int


@dataclass(frozen=True)
class Result:
    """What a method keeps of one model.

    Attributes:
        recovery: dense perplexity over its own; 0 where the perplexity is beyond all numbers.
        low: lower end of its paired 95 % interval over windows; None without windows.
        high: upper end; None likewise.
        perplexity: its own; None where it is beyond all numbers.
        status: `ok`, or why it counts as 0.
        records: the records behind it, one per seed.
        dense: what it is held against.
    """

    recovery: float
    low: float | None
    high: float | None
    perplexity: float | None
    status: str
    records: tuple[SiteRecord, ...]
    dense: SiteRecord


@dataclass(frozen=True)
class Entrant:
    """A row of a board: one method with one set of settings.

    Attributes:
        method: its name in the records.
        label: with what sets it apart.
        results: by subject; those it was not measured on are missing.
        score: mean recovery over all subjects of the board, missing ones as 0.
        low: lower end of its 95 % interval over windows; None where an interval is missing.
        high: upper end; None likewise.
        accuracy: mean accuracy on tasks over the dense model's; None where no task can be compared.
        n_tasks: pairs of model and task behind it.
        rank: 1 is best; equal scores share one.
        mark: `best`; `tied` where the windows cannot tell it from the best; `only`; or empty.
    """

    method: str
    label: str
    results: dict[Subject, Result]
    score: float
    low: float | None
    high: float | None
    accuracy: float | None
    n_tasks: int
    rank: int = 0
    mark: Mark = ""

    @property
    def records(self) -> tuple[SiteRecord, ...]:
        """All records behind it."""
        return tuple(held for result in self.results.values() for held in result.records)


@dataclass(frozen=True)
class Board:
    """A ranking over models.

    Attributes:
        key: what its records share.
        subjects: the models that count.
        absent: models that were asked for and that nobody has measured here; they count too.
        entrants: best first.
    """

    key: BoardKey
    subjects: tuple[Subject, ...]
    absent: tuple[str, ...]
    entrants: tuple[Entrant, ...]

    @property
    def title(self) -> str:
        """Pattern, text, limit and dtype, in words."""
        return f"{pattern_name(self.key.pattern)}: {protocol_of(self.key)}"

    @property
    def n_models(self) -> int:
        """Models behind every score."""
        return len(self.subjects) + len(self.absent)

    @property
    def n_results(self) -> int:
        """Pairs of a method and a model; seeds make no board larger."""
        return sum(len(entrant.results) for entrant in self.entrants)

    @property
    def n_records(self) -> int:
        """Pruned records behind it."""
        return sum(len(entrant.records) for entrant in self.entrants)


@dataclass(frozen=True)
class LeftOut:
    """A record that no board ranks, and why."""

    held: SiteRecord
    reason: str


@dataclass(frozen=True)
class Boards:
    """All boards, that of the commonest pattern first, and what stands on none."""

    boards: tuple[Board, ...]
    left_out: tuple[LeftOut, ...]


def protocol_of(key: BoardKey) -> str:
    """Text, limit and dtype of a board, in words."""
    limit = f"first {key.limit:,} tokens" if key.limit else "whole text"
    return f"{visible(key.protocol)}, {limit}, {key.dtype}"
