"""One case of the contract suite, for tests that look at what is said of it."""

from methods.base import PruningMethod
from methods.conformance import FAMILIES, HARD, ORDINARY, Case, Outcome, examine

_SITUATIONS = {situation.name: situation for situation in (*ORDINARY, *HARD)}


def outcome(
    method: PruningMethod, family: str = "llama", pattern: str = "0.5", situation: str = "fp32"
) -> Outcome:
    return examine(Case(method, method.name, FAMILIES[family], pattern, _SITUATIONS[situation]))
