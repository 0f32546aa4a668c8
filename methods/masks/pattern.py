"""Sparsity patterns: as they are written, and how many weights of a group they remove. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from methods.errors import InputError

MAX_PATTERN_LENGTH = 40


@dataclass(frozen=True)
class Unstructured:
    """A share of the weights of each comparison group goes, wherever they stand.

    Attributes:
        sparsity: the share, exactly as written, in [0, 1).
    """

    sparsity: Fraction

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity {float(self.sparsity):g} is outside [0, 1)")

    def for_module(self, name: str) -> Unstructured:
        """The pattern of one target module; the same for all of them here."""
        return self

    def n_pruned(self, group: int) -> int:
        """How many weights a comparison group of `group` weights loses."""
        return floor(group * self.sparsity)

    @property
    def target(self) -> float:
        """The sparsity asked for."""
        return float(self.sparsity)

    def __str__(self) -> str:
        return f"{float(self.sparsity)!r}".removesuffix(".0")


@dataclass(frozen=True)
class SemiStructured:
    """Of every M consecutive input weights N survive (`2:4`, `4:8`, `1:4`).

    Attributes:
        n: survivors.
        m: size of the group.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.m:
            raise InputError(
                f"pattern {self.n}:{self.m}: N weights of every M survive, so N must be from 1 to M "
                f"(did you mean {min(self.n, self.m) or 1}:{max(self.n, self.m) or 1}?)"
            )

    def for_module(self, name: str) -> SemiStructured:
        """The pattern of one target module; the same for all of them here."""
        return self

    def n_pruned(self, group: int) -> int:
        """How many weights a run of `group` consecutive input weights loses; `group` is a multiple of M."""
        return group // self.m * (self.m - self.n)

    @property
    def target(self) -> float:
        """The sparsity that it amounts to."""
        return (self.m - self.n) / self.m

    def check_divides(self, module: str, n_inputs: int) -> None:
        """Raises `InputError` if M does not divide the input dimension of `module`."""
        if n_inputs % self.m:
            raise InputError(f"pattern {self}: {self.m} does not divide the {n_inputs} inputs of {module}")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


UniformPattern = Unstructured | SemiStructured
"""What one target module is pruned to."""


@dataclass(frozen=True)
class Allocated:
    """An unstructured sparsity of its own for each target module.

    Attributes:
        base: the sparsity of all of them together.
        of_module: target name -> its share.
    """

    base: Unstructured
    of_module: Mapping[str, Unstructured]

    def for_module(self, name: str) -> Unstructured:
        """The pattern of one target module."""
        return self.of_module[name]

    @property
    def target(self) -> float:
        """The sparsity of all target modules together."""
        return self.base.target

    def __str__(self) -> str:
        return str(self.base)


SparsityPattern = UniformPattern | Allocated


def parse_pattern(text: str | float) -> UniformPattern:
    """Reads `0.5`, `50%` or `2:4`.

    Raises:
        InputError: it is none of these, or out of range.
    """
    written = str(text).strip()
    if len(written) > MAX_PATTERN_LENGTH:
        raise InputError(f"pattern {written[:20]!r}... is too long to be a sparsity or N:M")
    if match := re.fullmatch(r"(\d+):(\d+)", written):
        return SemiStructured(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)(%?)", written):
        return Unstructured(Fraction(match[1]) / (100 if match[2] else 1))
    raise InputError(f"pattern {written!r} is neither a sparsity such as 0.5 nor N:M such as 2:4")


__all__ = [
    "Allocated",
    "SemiStructured",
    "SparsityPattern",
    "UniformPattern",
    "Unstructured",
    "parse_pattern",
]
