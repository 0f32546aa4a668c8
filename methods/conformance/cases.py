"""Selects the cases to try: every method x pattern x family, or a subset that covers all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from methods.base import PruningMethod
from methods.conformance.case import Case
from methods.conformance.family import Family
from methods.conformance.situations import HARD, ORDINARY, Situation

PATTERNS = ("0.3", "0.5", "0.7", "0.9", "2:4", "4:8", "1:4")


def any_pattern(_: str) -> bool:
    """A `can` function for methods that support every pattern; returns True."""
    return True


@dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        method: the method.
        label: its name with its settings.
        can: returns whether it supports a pattern; it has to refuse all others.
    """

    method: PruningMethod
    label: str
    can: Callable[[str], bool] = any_pattern


def whole(
    variants: Sequence[Variant], families: Sequence[Family], patterns: Sequence[str] = PATTERNS
) -> list[Case]:
    """Returns every variant x pattern x family; the ordinary situations take turns."""
    return [
        _case(variant, family, pattern, ORDINARY[(v + p + f) % len(ORDINARY)])
        for (v, variant), (f, family), (p, pattern) in product(
            enumerate(variants), enumerate(families), enumerate(patterns)
        )
    ]


def covering(
    variants: Sequence[Variant],
    families: Sequence[Family],
    patterns: Sequence[str] = PATTERNS,
    *,
    every: int = 1,
) -> list[Case]:
    """Returns a subset of `whole` that covers every variant x pattern, variant x family, pattern x family.

    Every variant is tried on every family, while the patterns that it supports take turns; then the missing
    pairs are added. A refused case counts for the pair of variant and pattern only.

    Args:
        variants: the methods.
        families: the model families.
        patterns: the patterns to prune to.
        every: n: a variant is tried only on every n-th family, and the next variant starts one family later.
            Enough for recipes, which have to cover every pair of steps and every family, but not every
            combination of these.
    """
    doable = [[p for p, pattern in enumerate(patterns) if variant.can(pattern)] for variant in variants]
    chosen = {
        (v, doable[v][(v + f) % len(doable[v])], f)
        for v, f in product(range(len(variants)), range(len(families)))
        if doable[v] and (f - v) % every == 0
    }
    met = {(p, f) for _, p, f in chosen}
    for p, f in product(range(len(patterns)), range(len(families))):
        able = [v for v in range(len(variants)) if p in doable[v]]
        if (p, f) not in met and able:
            chosen.add((able[(p + f) % len(able)], p, f))
    tried = {(v, p) for v, p, _ in chosen}
    for v, p in product(range(len(variants)), range(len(patterns))):
        if (v, p) not in tried:
            chosen.add((v, p, (v + p) % len(families)))
    return [
        _case(variants[v], families[f], patterns[p], ORDINARY[(v + f) % len(ORDINARY)])
        for v, p, f in sorted(chosen)
    ]


def whole_hard(
    variants: Sequence[Variant], families: Sequence[Family], patterns: Sequence[str] = PATTERNS
) -> list[Case]:
    """Returns every variant x hard input x family; the patterns that a variant supports take turns."""
    places = product(range(len(variants)), range(len(HARD)), range(len(families)))
    return _hard_cases(places, variants, families, patterns)


def covering_hard(
    variants: Sequence[Variant], families: Sequence[Family], patterns: Sequence[str] = PATTERNS
) -> list[Case]:
    """Returns a subset of `whole_hard` that covers every variant x hard input and hard input x family."""
    chosen = {(v, s, (v + 5 * s) % len(families)) for v, s in product(range(len(variants)), range(len(HARD)))}
    met = {(s, f) for _, s, f in chosen}
    for s, f in product(range(len(HARD)), range(len(families))):
        if (s, f) not in met:
            chosen.add(((s + f) % len(variants), s, f))
    return _hard_cases(sorted(chosen), variants, families, patterns)


def _hard_cases(
    places: Iterable[tuple[int, int, int]],
    variants: Sequence[Variant],
    families: Sequence[Family],
    patterns: Sequence[str],
) -> list[Case]:
    cases = []
    for v, s, f in places:
        able = [pattern for pattern in patterns if variants[v].can(pattern)] or list(patterns)
        cases.append(_case(variants[v], families[f], able[(v + s + f) % len(able)], HARD[s]))
    return cases


def _case(variant: Variant, family: Family, pattern: str, situation: Situation) -> Case:
    return Case(variant.method, variant.label, family, pattern, situation)


__all__ = ["PATTERNS", "Variant", "any_pattern", "covering", "covering_hard", "whole", "whole_hard"]
