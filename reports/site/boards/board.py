"""The parts of a ranking over models, which `scoring` fills in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.site.records.site_record import SiteRecord
from reports.wording import pattern_name, visible

Mark = Literal["best", "tied", "only", ""]


@dataclass(frozen=True, order=True)
class BoardKey:
    """What all records of a board have in common."""

    pattern: str
    protocol: str
    corpus_revision: str
    seqlen: int
    limit: int
    """The cap on tokens; 0 = the whole corpus."""
    dtype: str

    @property
    def name(self) -> str:
        """All fields on one line, from which the name of its page is made."""
        limit = f"first {self.limit}" if self.limit else "whole"
        parts = (self.pattern, self.dtype, self.protocol, limit, self.corpus_revision, f"s{self.seqlen}")
        return " ".join(parts)


@dataclass(frozen=True, order=True)
class Subject:
    """A model of a board: its weights, and the text as tokenized by its tokenizer."""

    model: str
    weight_digest: str
    corpus_digest: str
    n_windows: int


@dataclass(frozen=True)
class Result:
    """The quality that a method keeps on one model.

    Attributes:
        recovery: dense perplexity over pruned perplexity; 0 if the perplexity is not finite.
        low: lower end of its paired 95 % interval over windows; None without windows.
        high: upper end of that interval; None without windows.
        perplexity: pruned perplexity; None if it is not finite.
        status: `ok`, or why it counts as 0.
        records: its records, one per seed.
        dense: the dense record that it is compared with.
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

    method: its name in the records.
    label: its name with the settings that distinguish it.
    results: its result by subject, if it was measured.
    score: mean recovery over all subjects of the board, missing ones as 0.
    low: lower end of its 95 % interval over windows; None if an interval is missing.
    high: upper end of that interval; None likewise.
    accuracy: mean accuracy on tasks divided by the dense model's; None if no task is comparable.
    n_tasks: pairs of model and task in that mean.
    rank: 1 is best; equal scores share one.
    mark: `best`; `tied` if the windows do not distinguish it from the best; `only`; or empty.
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
        """All its records."""
        return tuple(held for result in self.results.values() for held in result.records)


@dataclass(frozen=True)
class Board:
    """A ranking over models.

    Attributes:
        key: what its records have in common.
        subjects: the models that count.
        absent: requested models that have not been measured; they count too.
        entrants: best first.
    """

    key: BoardKey
    subjects: tuple[Subject, ...]
    absent: tuple[str, ...]
    entrants: tuple[Entrant, ...]

    @property
    def title(self) -> str:
        """Pattern, text, limit and dtype in words."""
        return f"{pattern_name(self.key.pattern)}: {protocol_of(self.key)}"

    @property
    def n_models(self) -> int:
        """Number of models that count in every score."""
        return len(self.subjects) + len(self.absent)

    @property
    def n_results(self) -> int:
        """Number of pairs of method and model; seeds do not count."""
        return sum(len(entrant.results) for entrant in self.entrants)

    @property
    def n_records(self) -> int:
        """Number of pruned records."""
        return sum(len(entrant.records) for entrant in self.entrants)


@dataclass(frozen=True)
class LeftOut:
    """A record that no board ranks, and the reason."""

    held: SiteRecord
    reason: str


@dataclass(frozen=True)
class Boards:
    """All boards, that of the most common pattern first, and the records on none of them."""

    boards: tuple[Board, ...]
    left_out: tuple[LeftOut, ...]


def protocol_of(key: BoardKey) -> str:
    """Describes text, limit and dtype of a board in words."""
    limit = f"first {key.limit:,} tokens" if key.limit else "whole text"
    return f"{visible(key.protocol)}, {limit}, {key.dtype}"
