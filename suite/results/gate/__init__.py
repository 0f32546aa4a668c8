"""The gate: decides whether a candidate got worse than its baseline, and whether the two can be compared.

`docs/gate.md` documents the rules, their reasons, and measurements of what the gate detects and misses.
"""

from suite.results.gate.gate_inputs import Entry, Side, read_side
from suite.results.gate.judge import judge
from suite.results.gate.tolerances import Tolerance, Tolerances, load_tolerances
from suite.results.gate.verdict import CellVerdict, MetricVerdict, Outcome, Verdict

__all__ = [
    "CellVerdict",
    "Entry",
    "MetricVerdict",
    "Outcome",
    "Side",
    "Tolerance",
    "Tolerances",
    "Verdict",
    "judge",
    "load_tolerances",
    "read_side",
]
