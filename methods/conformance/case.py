"""One thing to try."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import PruningMethod
from methods.conformance.family import Family
from methods.conformance.situations import Situation


@dataclass(frozen=True)
class Case:
    """One method, on one family, with one pattern, in one situation.

    Attributes:
        method: what prunes.
        label: what to call it, with its settings.
        family: on which model.
        pattern: as a user writes it.
        situation: how it is called.
    """

    method: PruningMethod
    label: str
    family: Family
    pattern: str
    situation: Situation

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"{self.label}-{self.family.name}-{self.pattern}-{self.situation.name}"

    @property
    def where(self) -> str:
        """For a sentence."""
        pattern = self.situation.pattern or self.pattern
        return f"{self.family.name} at {pattern}, {self.situation.name} ({self.situation.described})"


__all__ = ["Case"]
