"""The outcome of a case, with messages that tell the author of a method what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PROMISES = {
    0: "the interface",
    1: "what is pruned is exactly 0 and nothing else changes",
    2: "each comparison group loses exactly its share",
    3: "the same input gives the same masks, to the bit",
    4: "nothing about the model changes except its weights",
    5: "hard input has a defined outcome",
}
"""The promises by number; 0 has to hold before the others can be checked."""


class Verdict(StrEnum):
    """How a case ended."""

    KEPT = "kept"
    """Every promise was kept."""
    REFUSED = "refused"
    """The method refused in one line, and changed nothing."""
    BROKEN = "broken"
    """A promise was broken."""


@dataclass(frozen=True)
class Broken:
    """A broken promise.

    Attributes:
        promise: its number in `PROMISES`.
        seen: what is wrong, and where.
        advice: how to fix it.
    """

    promise: int
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"promise {self.promise} ({PROMISES[self.promise]}): {self.seen}. {self.advice}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one case.

    Attributes:
        verdict: how the case ended.
        refusal: the message with which the method refused; empty otherwise.
        broken: the promise that was broken; None otherwise.
    """

    verdict: Verdict
    refusal: str = ""
    broken: Broken | None = None

    @property
    def reason(self) -> str:
        """The refusal or the broken promise; empty if all promises were kept."""
        return str(self.broken) if self.broken is not None else self.refusal


class BrokenPromiseError(Exception):
    """Ends a case at the first broken promise."""

    def __init__(self, promise: int, seen: str, advice: str) -> None:
        self.broken = Broken(promise, seen, advice)
        super().__init__(str(self.broken))


__all__ = ["PROMISES", "Broken", "BrokenPromiseError", "Outcome", "Verdict"]
