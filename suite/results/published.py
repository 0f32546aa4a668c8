"""What the papers report, as data: `published.toml`, one row a number, each with where it was read.

A published number may stand beside a measured one only where model, method, pattern and protocol are the
same; `published_values` finds no other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from suite.cell import DENSE, SettingValue, Spec

PUBLISHED = Path(__file__).with_name("published.toml")


class Paper(Spec):
    """Whose number it is."""

    arxiv: str = Field(pattern=r"^\d{4}\.\d{5}$")
    """Its arXiv id."""
    title: str = Field(min_length=1)
    """Its title."""
    url: str = Field(pattern=r"^https://")
    """Where it is."""


class PublishedValue(Spec):
    """One published number."""

    paper: Paper
    """Whose it is."""
    table: str | None = None
    """The number of the paper's table, where the text that was read names it."""
    model: str = Field(min_length=1)
    """The hub id that the authors' code names."""
    method: str = Field(min_length=1)
    """A registered method, or `dense`."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """Settings of the method that the number depends on, e.g. `initial`; those not stated are left out."""
    allocation: str | None = None
    """A registered allocation; None = every target module got the same sparsity."""
    pattern: str | None = None
    """`0.5`, `2:4`; None when dense."""
    protocol: str = Field(pattern=r"^[a-z0-9-]+-token-s\d+$")
    """The protocol's name (docs/protocols.md)."""
    metric: Literal["perplexity"]
    """What was measured."""
    value: float = Field(gt=0)
    """The number, with the digits it was published with."""
    calibration: str | None = None
    """As stated; None for the dense model, or where it is not."""
    evidence: Literal["authors", "quoted"]
    """`authors`: their own text holds the number. `quoted`: it is cited from the paper in their tracker."""
    verified_in: tuple[str, ...] = Field(min_length=1)
    """The texts that number and protocol were read in: `owner/repository@commit path`, or an address."""
    note: str | None = None
    """What a reader must know before comparing."""

    @model_validator(mode="after")
    def _pattern_unless_dense(self) -> PublishedValue:
        if (self.method == DENSE) != (self.pattern is None):
            raise ValueError("a pattern belongs to every method, and none to `dense`")
        return self

    def answers(self, settings: Mapping[str, object]) -> bool:
        """Whether a cell with these settings, defaults written out, is run as this number was."""
        return all(name in settings and settings[name] == stated for name, stated in self.settings.items())


class _Row(Spec):
    """A number inside a `[[tables]]`."""

    model: str
    method: str
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    allocation: str | None = None
    pattern: str | None = None
    value: float


class _Table(Spec):
    """Numbers of one paper that share protocol and source."""

    paper: str
    table: str | None = None
    protocol: str
    metric: Literal["perplexity"]
    calibration: str | None = None
    evidence: Literal["authors", "quoted"]
    verified_in: tuple[str, ...]
    note: str | None = None
    values: tuple[_Row, ...]


class _File(Spec):
    """`published.toml`."""

    papers: dict[str, Paper] = Field(default_factory=dict)
    tables: tuple[_Table, ...] = ()


def parse_published(text: str) -> tuple[PublishedValue, ...]:
    """The rows of a file of published numbers, in its order.

    Args:
        text: TOML as in `published.toml`.

    Raises:
        ValueError: not TOML, an unknown or missing key, a value of the wrong form, a paper that is not
            listed, or the same number twice.
    """
    file = _File.model_validate(tomllib.loads(text))
    found: dict[tuple[object, ...], PublishedValue] = {}
    for table in file.tables:
        if table.paper not in file.papers:
            raise ValueError(f"paper {table.paper!r} is not among [papers]: {', '.join(file.papers)}")
        shared = table.model_dump(exclude={"paper", "values"})
        for row in table.values:
            own = row.model_dump()
            if row.method == DENSE:
                own["calibration"] = None
            value = PublishedValue.model_validate({**shared, **own, "paper": file.papers[table.paper]})
            if found.setdefault(_asked_for(value), value) is not value:
                raise ValueError(f"twice in {table.paper}: {value.model} {value.method} {value.pattern}")
    return tuple(found.values())


def published_values(
    *,
    model: str,
    method: str,
    pattern: str | None,
    protocol: str,
    settings: Mapping[str, object] | None = None,
    allocation: str | None = None,
) -> tuple[PublishedValue, ...]:
    """The published numbers that may stand beside a cell's own.

    All is compared exactly: a perplexity in windows of 4,096 tokens is no answer for windows of 2,048, nor a
    number under OWL one for uniform sparsity.

    Args:
        model: a hub id.
        method: a registered method, or `dense`.
        pattern: as the cell spells it; None when dense.
        protocol: the protocol's name.
        settings: the cell's, defaults written out. A number is found only where all settings that it states
            are among them.
        allocation: the cell's; None = uniform.

    Returns:
        None or several, in the file's order.
    """
    return tuple(
        value
        for value in _published()
        if (value.model, value.method, value.pattern) == (model, method, pattern)
        and (value.protocol, value.allocation) == (protocol, allocation)
        and value.answers(settings or {})
    )


@lru_cache(maxsize=1)
def _published() -> tuple[PublishedValue, ...]:
    return parse_published(PUBLISHED.read_text(encoding="utf-8"))


def _asked_for(value: PublishedValue) -> tuple[object, ...]:
    """What no two numbers of a paper may share."""
    settings = tuple(sorted((name, repr(setting)) for name, setting in value.settings.items()))
    run = (value.model, value.method, settings, value.allocation, value.pattern)
    return (value.paper.arxiv, *run, value.protocol, value.metric)


__all__ = ["PUBLISHED", "Paper", "PublishedValue", "parse_published", "published_values"]
