"""BibTeX entries for what a set of records used: methods, allocations, models, corpora and tools."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from reports.wording import visible
from suite.results.records.record import Record

Kind = Literal["method", "allocation", "model", "corpus", "tool"]


class Entry(BaseModel):
    """One entry of `bibliography.toml`; the fields are those of BibTeX, their text is TeX."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    key: str = Field(pattern=r"^[a-z][a-z0-9]+$")
    """Key by which a document cites it."""
    type: Literal["article", "inproceedings", "misc"]
    """BibTeX entry type."""
    used_for: tuple[str, ...] = Field(alias="for", min_length=1)
    """What to cite it for: `method:wanda`, `model:<regular expression>`..."""
    title: str
    author: str
    year: int
    booktitle: str | None = None
    journal: str | None = None
    volume: int | None = None
    howpublished: str | None = None
    doi: str | None = None
    arxiv: str | None = Field(None, pattern=r"^\d{4}\.\d{5}$")

    def is_about(self, kind: Kind, name: str) -> bool:
        """Whether it is the entry to cite for that name."""
        for used in self.used_for:
            used_kind, _, used_name = used.partition(":")
            if used_kind != kind:
                continue
            if used_name == name or (kind == "model" and re.search(used_name, name, re.IGNORECASE)):
                return True
        return False

    @property
    def bibtex(self) -> str:
        """The entry as text of a .bib file."""
        fields: dict[str, object] = {
            "title": self.title,
            "author": self.author,
            "booktitle": self.booktitle,
            "journal": self.journal,
            "volume": self.volume,
            "year": self.year,
            "howpublished": self.howpublished,
            "doi": self.doi,
            "eprint": self.arxiv,
            "archiveprefix": "arXiv" if self.arxiv else None,
            # Styles that know neither eprint nor doi print the note.
            "note": f"arXiv:{self.arxiv}" if self.arxiv else f"doi:{self.doi}" if self.doi else None,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value is not None]
        return "\n".join([f"@{self.type}{{{self.key},", *lines, "}"])


@dataclass(frozen=True)
class Used:
    """A method, model or other source that records used.

    Attributes:
        kind: kind of source.
        name: the name in the records, with control characters escaped.
        entry: the entry to cite for it; None if `bibliography.toml` has none.
    """

    kind: Kind
    name: str
    entry: Entry | None


def used_by(records: Iterable[Record]) -> tuple[Used, ...]:
    """Returns everything that the records used, without repeats: methods first, then models, corpora and
    tools.
    """
    order = ("method", "allocation", "model", "corpus", "tool")
    found = dict.fromkeys(pair for record in records for pair in _named(record))
    sources = sorted(found, key=lambda pair: (order.index(pair[0]), pair[1]))
    return tuple(Used(kind, visible(name), entry_for(kind, name)) for kind, name in sources)


def entry_for(kind: Kind, name: str) -> Entry | None:
    """Returns the entry to cite for that; None if there is none."""
    return next((entry for entry in entries() if entry.is_about(kind, name)), None)


def entry_of_paper(arxiv: str) -> Entry | None:
    """Returns the entry of a paper by its arXiv id; None if there is none."""
    return next((entry for entry in entries() if entry.arxiv == arxiv), None)


def bibtex(cited: Sequence[Entry]) -> str:
    """Formats these entries as a .bib file without repeats, sorted by key."""
    unique = {entry.key: entry for entry in cited}
    return "\n\n".join(unique[key].bibtex for key in sorted(unique)) + "\n"


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Returns all entries of `bibliography.toml`.

    Raises:
        ValueError: a field is unknown or missing, or a value is malformed.
    """
    text = files("reports.export.paper").joinpath("bibliography.toml").read_text(encoding="utf-8")
    return tuple(Entry.model_validate({"key": key, **row}) for key, row in tomllib.loads(text).items())


def _named(record: Record) -> Iterator[tuple[Kind, str]]:
    cell = record.cell
    yield "model", cell.model
    if cell.prunes:
        yield "method", cell.method
    initial = cell.settings.get("initial")
    if isinstance(initial, str):
        yield "method", initial
    if cell.allocation is not None:
        yield "allocation", cell.allocation.name
    for spec in cell.perplexity:
        yield "corpus", spec.corpus
    if cell.calibration is not None:
        yield "corpus", cell.calibration.source
    if cell.tasks:
        yield "tool", "lm-eval"


__all__ = ["Entry", "Used", "bibtex", "entries", "entry_for", "entry_of_paper", "used_by"]
