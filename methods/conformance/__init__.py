"""The conformance suite: checks the promises of a method on model families, patterns and hard inputs.

    from methods.conformance import FAMILIES, Variant, covering, examine
    for case in covering([Variant(MyMethod(), "mine")], list(FAMILIES.values())):
        print(case.name, examine(case).reason)

`prunebench check-method` runs it for authors of methods, and `tests/methods/test_contract.py` for the
built-in methods.
"""

from methods.conformance.case import Case
from methods.conformance.cases import PATTERNS, Variant, covering, covering_hard, whole, whole_hard
from methods.conformance.examine import examine
from methods.conformance.families import FAMILIES, family_named
from methods.conformance.family import Family
from methods.conformance.outcome import PROMISES, Broken, Outcome, Verdict
from methods.conformance.situations import HARD, ORDINARY, Situation

__all__ = [
    "FAMILIES",
    "HARD",
    "ORDINARY",
    "PATTERNS",
    "PROMISES",
    "Broken",
    "Case",
    "Family",
    "Outcome",
    "Situation",
    "Variant",
    "Verdict",
    "covering",
    "covering_hard",
    "examine",
    "family_named",
    "whole",
    "whole_hard",
]
