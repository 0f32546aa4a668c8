"""Runs the contract tests on one method, for its author."""

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
    """One case and its outcome."""

    case: Case
    outcome: Outcome

    @property
    def is_hard(self) -> bool:
        """Whether the case has a hard input."""
        return self.case.situation in HARD


@dataclass(frozen=True)
class MethodCheck:
    """The outcomes of all cases of one method.

    Attributes:
        name: name of the method.
        tried: all cases with their outcomes.
    """

    name: str
    tried: tuple[Tried, ...]

    @property
    def broken(self) -> list[tuple[Broken, list[Tried]]]:
        """Each broken promise with the cases in which it was broken, worst first."""
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
        """Whether the method refused every ordinary case, so that nothing was tested."""
        return all(t.outcome.verdict is Verdict.REFUSED for t in self.tried if not t.is_hard)

    @property
    def holds(self) -> bool:
        """Whether every promise was kept, and at least one ordinary case was not refused."""
        return not self.broken and not self.prunes_nothing

    def count(self, verdict: Verdict) -> int:
        """Returns the number of cases with this verdict."""
        return sum(tried.outcome.verdict is verdict for tried in self.tried)


def cases_of(method: PruningMethod, families: Sequence[str] = (), *, everything: bool = False) -> list[Case]:
    """Returns the cases for one method: each family with each pattern, and each hard input with each family.

    Args:
        method: the method.
        families: names of the model families; empty = all.
        everything: try each family and pattern in every ordinary situation, instead of one situation each.

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
    # With a refused pattern, a hard input would not be tested.
    able = Variant(method, method.name, can=lambda pattern: pattern not in refused)
    return [*ordinary, *covering_hard([able], chosen)]


def run_cases(name: str, cases: Sequence[Case], on_case: Callable[[int, Case], None]) -> MethodCheck:
    """Runs all cases; calls `on_case` before each case with the number of cases done."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads only slow down work on tiny tensors
    try:
        tried = []
        for n_done, case in enumerate(cases):
            on_case(n_done, case)
            tried.append(Tried(case, examine(case)))
    finally:
        torch.set_num_threads(threads)
    return MethodCheck(name, tuple(tried))


__all__ = ["MethodCheck", "Tried", "cases_of", "run_cases"]
