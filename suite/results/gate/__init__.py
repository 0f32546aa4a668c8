"""The gate: did a candidate get worse than its baseline, and could that be told at all?

`docs/gate.md` has the rules, their reasons, and what the gate was seen to find and to let pass.
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
