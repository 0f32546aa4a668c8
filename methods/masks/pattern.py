"""Sparsity patterns: parsing, and the number of weights that they remove per group. Does not import torch."""

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
    """Removes a share of the weights of each comparison group, at any positions.

    Attributes:
        sparsity: the share, as the exact fraction of the decimal number given, in [0, 1).
    """

    sparsity: Fraction

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity {float(self.sparsity):g} is outside [0, 1)")

    def for_module(self, name: str) -> Unstructured:
        """Returns the pattern of one target module, which is the same for all modules."""
        return self

    def n_pruned(self, group: int) -> int:
        """Returns how many weights are removed from a comparison group of `group` weights."""
        return floor(group * self.sparsity)

    @property
    def target(self) -> float:
        """The requested sparsity."""
        return float(self.sparsity)

    def __str__(self) -> str:
        return f"{float(self.sparsity)!r}".removesuffix(".0")


@dataclass(frozen=True)
class SemiStructured:
    """Keeps N of every M consecutive input weights (`2:4`, `4:8`, `1:4`).

    Attributes:
        n: N, the number of survivors per group.
        m: M, the size of a group.
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
        """Returns the pattern of one target module, which is the same for all modules."""
        return self

    def n_pruned(self, group: int) -> int:
        """Returns how many of `group` consecutive input weights are removed; `group` is a multiple of M."""
        return group // self.m * (self.m - self.n)

    @property
    def target(self) -> float:
        """The resulting sparsity."""
        return (self.m - self.n) / self.m

    def check_divides(self, module: str, n_inputs: int) -> None:
        """Raises `InputError` if M does not divide the input dimension of `module`."""
        if n_inputs % self.m:
            raise InputError(f"pattern {self}: {self.m} does not divide the {n_inputs} inputs of {module}")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


UniformPattern = Unstructured | SemiStructured
"""The pattern of a single target module."""


@dataclass(frozen=True)
class Allocated:
    """An unstructured pattern with one sparsity per target module.

    Attributes:
        base: the sparsity of all modules together.
        of_module: target name -> pattern of the module.
    """

    base: Unstructured
    of_module: Mapping[str, Unstructured]

    def for_module(self, name: str) -> Unstructured:
        """Returns the pattern of one target module."""
        return self.of_module[name]

    @property
    def target(self) -> float:
        """The sparsity of all target modules together."""
        return self.base.target

    def __str__(self) -> str:
        return str(self.base)


SparsityPattern = UniformPattern | Allocated


def parse_pattern(text: str | float) -> UniformPattern:
    """Parses `0.5`, `50%` or `2:4`.

    Raises:
        InputError: the text is none of these, or out of range.
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
