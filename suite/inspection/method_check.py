"""Runs the contract suite on one method, for its author."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from methods.base import PruningMethod
from methods.conformance import (
    FAMILIES,
    HARD,
    ORDINARY,
    PATTERNS,
    Broken,
    Case,
    Family,
    Outcome,
    Variant,
    Verdict,
    covering_hard,
    examine,
    family_named,
    whole,
)


@dataclass(frozen=True)
class Tried:
    """One case and how it ended."""

    case: Case
    outcome: Outcome

    @property
    def is_hard(self) -> bool:
        """Whether its input was a hard one."""
        return self.case.situation in HARD


@dataclass(frozen=True)
class MethodCheck:
    """What became of all cases of one method.

    Attributes:
        name: the method's.
        tried: every case.
    """

    name: str
    tried: tuple[Tried, ...]

    @property
    def broken(self) -> list[tuple[Broken, list[Tried]]]:
        """Each thing that is wrong, and the cases in which it showed; worst first."""
        found: dict[tuple[int, str], list[Tried]] = {}
        for tried in self.tried:
            if broken := tried.outcome.broken:
                found.setdefault((broken.promise, broken.advice), []).append(tried)
        firsts = [(cases[0].outcome.broken, cases) for cases in found.values()]
        return sorted(
            ((broken, cases) for broken, cases in firsts if broken is not None),
            key=lambda entry: (entry[0].promise, -len(entry[1])),
        )

    @property
    def prunes_nothing(self) -> bool:
        """Whether every ordinary case was refused, so that nothing was shown."""
        return all(t.outcome.verdict is Verdict.REFUSED for t in self.tried if not t.is_hard)

    @property
    def holds(self) -> bool:
        """Whether every promise was kept, and something pruned."""
        return not self.broken and not self.prunes_nothing

    def count(self, verdict: Verdict) -> int:
        """How many cases ended so."""
        return sum(tried.outcome.verdict is verdict for tried in self.tried)


def cases_of(method: PruningMethod, families: Sequence[str] = (), *, everything: bool = False) -> list[Case]:
    """What is tried on one method: each family with each pattern, and each hard input on each family.

    Args:
        method: the method.
        families: names of those to try it on; all where empty.
        everything: each of these in every ordinary situation, instead of by turns.

    Raises:
        InputError: an unknown family.
    """
    chosen: list[Family] = [family_named(name) for name in families] or list(FAMILIES.values())
    ordinary = whole([Variant(method, method.name)], chosen)
    refused = {
        case.pattern
        for case in ordinary[: len(PATTERNS)]
        if examine(replace(case, situation=ORDINARY[0])).verdict is Verdict.REFUSED
    }
    if everything:
        ordinary = [replace(case, situation=situation) for case in ordinary for situation in ORDINARY]
    # A refused pattern would hide what becomes of a hard input.
    able = Variant(method, method.name, can=lambda pattern: pattern not in refused)
    return [*ordinary, *covering_hard([able], chosen)]


def run_cases(name: str, cases: Sequence[Case], on_case: Callable[[int, Case], None]) -> MethodCheck:
    """Tries all cases; `on_case` is called before each, with the number of those that are done."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them only slow tiny tensors down
    try:
        tried = []
        for n_done, case in enumerate(cases):
            on_case(n_done, case)
            tried.append(Tried(case, examine(case)))
    finally:
        torch.set_num_threads(threads)
    return MethodCheck(name, tuple(tried))


__all__ = ["MethodCheck", "Tried", "cases_of", "run_cases"]
