"""Splits a cell's seconds by phase so that no second counts twice.

A record's phase `prune` encloses the phases of the method itself: statistics, solve, propagate, and any other
phases of methods defined elsewhere. The allocation precedes it, and so does an initial prune that another
cell has done. Evaluation phases are grouped by kind: a record has one phase per text and per task, and two
for answers.
"""

from __future__ import annotations

from reports.rankings.ranking import METHOD_PHASES
from suite.results.records.record import Record

REST = "rest of the prune"
"""Time of the phase `prune` that none of the phases in it accounts for."""
EVALUATION = ("dense reference", "texts", "tasks", "answers", "speed", "count zeros")
"""Phases that evaluate the model, by kind."""
PHASES = ("load", "calibrate", *METHOD_PHASES, REST, "check", *EVALUATION, "reference speed")
"""Phases in the order in which they first happen, then the reference speed; others follow by name."""

_KINDS = {"answer prompts": "answers", "judge answers": "answers", "speed, sparse kernels": "speed"}
_AROUND = ("load", "calibrate", "allocate", "initial", "check", *EVALUATION, "reference speed")
"""Phases outside the phase `prune`."""


def spent_by_phase(record: Record) -> dict[str, float]:
    """Returns seconds by phase, with `prune` split into its parts and evaluations grouped by kind."""
    spent: dict[str, float] = {}
    enclosing: float | None = None
    for phase in record.phases:
        if phase.name == "prune":
            enclosing = (enclosing or 0.0) + phase.seconds
            continue
        kind = _kind(phase.name, record)
        spent[kind] = spent.get(kind, 0.0) + phase.seconds
    if enclosing is not None:
        inner = sum(took for name, took in spent.items() if name not in _AROUND)
        # The clocks of the parts and of the whole may differ slightly.
        spent[REST] = max(0.0, enclosing - inner)
    return {name: spent[name] for name in sorted(spent, key=_place)}


def _kind(name: str, record: Record) -> str:
    measured = name.removeprefix("evaluate ")
    if measured == name:
        return _KINDS.get(name, name)
    texts = {protocol for spec in record.cell.perplexity for protocol in spec.protocols}
    return "texts" if measured in texts else "tasks"


def _place(name: str) -> tuple[int, str]:
    return (PHASES.index(name) if name in PHASES else len(PHASES), name)


__all__ = ["EVALUATION", "PHASES", "REST", "spent_by_phase"]
