"""A test case of the conformance suite."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import PruningMethod
from methods.conformance.family import Family
from methods.conformance.situations import Situation


@dataclass(frozen=True)
class Case:
    """One method on one family, with one pattern, in one situation.

    Attributes:
        method: the method to check.
        label: name of the method with its settings.
        family: the model family.
        pattern: the pattern as a user writes it.
        situation: the way in which the method is called.
    """

    method: PruningMethod
    label: str
    family: Family
    pattern: str
    situation: Situation

    @property
    def name(self) -> str:
        """A short, unique name of the case."""
        return f"{self.label}-{self.family.name}-{self.pattern}-{self.situation.name}"

    @property
    def where(self) -> str:
        """A description of the case for use in a sentence."""
        pattern = self.situation.pattern or self.pattern
        return f"{self.family.name} at {pattern}, {self.situation.name} ({self.situation.described})"


__all__ = ["Case"]
