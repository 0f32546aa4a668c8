"""Where a cell's seconds went, so that no second counts twice.

A record's phase `prune` encloses the method's own: statistics, solve, propagate, and whatever a method from
elsewhere calls its phases. The allocation comes before it, and so does an initial prune that another cell had
done. Everything that measures the model is one phase
here: a record has one a text and a task, and others for answers and speed.
"""

from __future__ import annotations

from reports.ranking import METHOD_PHASES
from suite.results.record import Record

REST = "rest of the prune"
"""What the phase that encloses the method's own has beyond them."""
PHASES = ("load", "calibrate", *METHOD_PHASES, REST, "check", "evaluate", "floor")
"""In the order in which they first happen, the machine's floor last; others follow by name."""

_MEASURING = (
    *("dense reference", "answer prompts", "judge answers"),
    *("speed", "speed, sparse kernels", "count zeros"),
)
_AROUND = ("load", "calibrate", "allocate", "initial", "check", "evaluate", "floor")
"""Phases that the prune does not enclose."""


def spent_by_phase(record: Record) -> dict[str, float]:
    """Seconds by phase: the whole prune is there as its parts, all evaluations are one."""
    spent: dict[str, float] = {}
    enclosing: float | None = None
    for phase in record.phases:
        if phase.name == "prune":
            enclosing = (enclosing or 0.0) + phase.seconds
            continue
        measures = phase.name.startswith("evaluate") or phase.name in _MEASURING
        kind = "evaluate" if measures else phase.name
        spent[kind] = spent.get(kind, 0.0) + phase.seconds
    if enclosing is not None:
        inner = sum(took for name, took in spent.items() if name not in _AROUND)
        # Clocks of the parts and of the whole may differ by a hair.
        spent[REST] = max(0.0, enclosing - inner)
    return {name: spent[name] for name in sorted(spent, key=_place)}


def _place(name: str) -> tuple[int, str]:
    return (PHASES.index(name) if name in PHASES else len(PHASES), name)


__all__ = ["PHASES", "REST", "spent_by_phase"]
