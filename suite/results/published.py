"""Numbers that papers report, read from `published.toml`: one row per number, each with its source.

A published number may be shown beside a measured one only if model, method, pattern and protocol are the
same; `published_values` returns only such numbers.
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
    """A paper that reports numbers."""

    arxiv: str = Field(pattern=r"^\d{4}\.\d{5}$")
    """The arXiv id."""
    title: str = Field(min_length=1)
    """The title."""
    url: str = Field(pattern=r"^https://")
    """The address of the paper."""


class PublishedValue(Spec):
    """One published number."""

    paper: Paper
    """The paper that reports the number."""
    table: str | None = None
    """The number of the paper's table; None if the text that was read does not name it."""
    model: str = Field(min_length=1)
    """The hub id used in the authors' code."""
    method: str = Field(min_length=1)
    """Name of a registered method, or `dense`."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """Settings of the method that the number depends on, e.g. `initial`; unstated ones are left out."""
    allocation: str | None = None
    """Name of a registered allocation; None = every target module got the same sparsity."""
    pattern: str | None = None
    """Sparsity pattern such as `0.5` or `2:4`; None if dense."""
    protocol: str = Field(pattern=r"^[a-z0-9-]+-token-s\d+$")
    """Name of the protocol (docs/protocols.md)."""
    metric: Literal["perplexity"]
    """The metric that was measured."""
    value: float = Field(gt=0)
    """The number, with as many digits as published."""
    calibration: str | None = None
    """The calibration set as stated; None for the dense model, or if it is not stated."""
    evidence: Literal["authors", "quoted"]
    """`authors`: the authors' own text contains the number. `quoted`: a thread in their issue tracker quotes
    it from the paper."""
    verified_in: tuple[str, ...] = Field(min_length=1)
    """Texts that confirm number and protocol: `owner/repository@commit path`, or an address."""
    note: str | None = None
    """A caveat that a reader must know before comparing."""

    @model_validator(mode="after")
    def _pattern_unless_dense(self) -> PublishedValue:
        if (self.method == DENSE) != (self.pattern is None):
            raise ValueError("every method needs a pattern, and `dense` must have none")
        return self

    def answers(self, settings: Mapping[str, object]) -> bool:
        """Whether the settings of a cell, including defaults, contain all settings stated for this number."""
        return all(name in settings and settings[name] == stated for name, stated in self.settings.items())


class _Row(Spec):
    """A number inside an entry of `[[tables]]`."""

    model: str
    method: str
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    allocation: str | None = None
    pattern: str | None = None
    value: float


class _Table(Spec):
    """Numbers of one paper that share protocol and sources."""

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
    """The content of `published.toml`."""

    papers: dict[str, Paper] = Field(default_factory=dict)
    tables: tuple[_Table, ...] = ()


def parse_published(text: str) -> tuple[PublishedValue, ...]:
    """Parses a file of published numbers and returns its rows in order.

    Args:
        text: TOML as in `published.toml`.

    Raises:
        ValueError: the text is not TOML, a key is unknown or missing, a value has the wrong form, a paper is
            not listed, or the same number occurs twice.
    """
    file = _File.model_validate(tomllib.loads(text))
    found: dict[tuple[object, ...], PublishedValue] = {}
    for table in file.tables:
        if table.paper not in file.papers:
            raise ValueError(f"paper {table.paper!r} is not among [papers]: {', '.join(file.papers)}")
        shared = table.model_dump(exclude={"paper", "values"})
        for row in table.values:
            fields = row.model_dump()
            if row.method == DENSE:
                fields["calibration"] = None
            value = PublishedValue.model_validate({**shared, **fields, "paper": file.papers[table.paper]})
            if found.setdefault(_key(value), value) is not value:
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
    """Returns the published numbers that may be shown beside the numbers of a cell.

    Everything must match exactly: a perplexity with windows of 4,096 tokens is not comparable with one with
    windows of 2,048 tokens, nor a number with OWL with one for uniform sparsity.

    Args:
        model: a hub id.
        method: name of a registered method, or `dense`.
        pattern: the cell's pattern; None if dense.
        protocol: name of the protocol.
        settings: the cell's settings, including defaults. A number matches only if all settings that it
            states are among them.
        allocation: name of the cell's allocation; None = uniform.

    Returns:
        Any number of values, in the order of the file.
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


def _key(value: PublishedValue) -> tuple[object, ...]:
    """Returns the key that must be unique among the numbers of a paper."""
    settings = tuple(sorted((name, repr(setting)) for name, setting in value.settings.items()))
    run = (value.model, value.method, settings, value.allocation, value.pattern)
    return (value.paper.arxiv, *run, value.protocol, value.metric)


__all__ = ["PUBLISHED", "Paper", "PublishedValue", "parse_published", "published_values"]
