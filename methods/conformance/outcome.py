"""How a case ended, in words that the author of a method can act on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PROMISES = {
    0: "the interface",
    1: "what is pruned is exactly 0 and nothing else changes",
    2: "each comparison group loses exactly its share",
    3: "the same input gives the same masks, to the bit",
    4: "the model comes back as it was, but for its weights",
    5: "hard input has a defined outcome",
}
"""The promises by number; 0 is what has to hold before the others can be checked."""


class Verdict(StrEnum):
    """How a case ended."""

    KEPT = "kept"
    """Every promise was kept."""
    REFUSED = "refused"
    """The method said in one line that it cannot do this, and touched nothing."""
    BROKEN = "broken"
    """A promise was broken."""


@dataclass(frozen=True)
class Broken:
    """A broken promise.

    Attributes:
        promise: its number in `PROMISES`.
        seen: what was seen, and where.
        advice: what to do about it.
    """

    promise: int
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"promise {self.promise} ({PROMISES[self.promise]}): {self.seen}. {self.advice}"


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes:
        verdict: in a word.
        refusal: the line with which the method refused; empty otherwise.
        broken: the promise that was broken; None otherwise.
    """

    verdict: Verdict
    refusal: str = ""
    broken: Broken | None = None

    @property
    def reason(self) -> str:
        """Why it is not kept; empty if it is."""
        return str(self.broken) if self.broken is not None else self.refusal


class BrokenPromiseError(Exception):
    """Ends a case at the first promise found broken."""

    def __init__(self, promise: int, seen: str, advice: str) -> None:
        self.broken = Broken(promise, seen, advice)
        super().__init__(str(self.broken))


__all__ = ["PROMISES", "Broken", "BrokenPromiseError", "Outcome", "Verdict"]
