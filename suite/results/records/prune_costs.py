"""Computes the cost of a prune from the phases of a record and the work it shared with other cells."""

from __future__ import annotations

from collections.abc import Sequence

from suite.results.records.record import PhaseCost, SharedPart

BEFOREHAND = ("calibrate", "allocate")
INITIAL, PRUNE = "initial", "prune"
ABSENT = {
    "peak_device_bytes": "no accelerator in use",
    "prune_energy_joules": "this machine does not count energy",
}
"""Maps a metric to the reason for a missing value."""


def prune_costs(phases: Sequence[PhaseCost], shared: Sequence[SharedPart]) -> dict[str, float | None]:
    """Returns the cost metrics of a prune by name; empty if nothing was pruned.

    `prune_seconds` covers the whole prune as if the cell had run alone: it includes an initial prune that
    another cell did. `own_prune_seconds` excludes the calibration set and the initial prune, no matter which
    cell made them; it is only present if the record contains their times.

    Args:
        phases: phases of the record.
        shared: shared work of the record.
    """
    prune = next((phase for phase in phases if phase.name == PRUNE), None)
    if prune is None:
        return {}
    parts = [prune, *(phase for phase in phases if phase.name == INITIAL)]
    beforehand = sum(phase.seconds for phase in phases if phase.name in BEFOREHAND)
    total = sum(phase.seconds for phase in parts) + beforehand
    joules = [phase.energy_joules for phase in parts if phase.energy_joules is not None]
    costs: dict[str, float | None] = {
        "prune_seconds": total,
        "peak_host_bytes": _highest([phase.peak_host_bytes for phase in parts]),
        "peak_device_bytes": _highest([phase.peak_device_bytes for phase in parts]),
        "prune_energy_joules": sum(joules) if len(joules) == len(parts) else None,
    }
    if shared:
        initial = [part.seconds for part in shared if part.what == "initial mask"]
        drawn = sum(part.seconds for part in shared if part.what == "calibration")
        # The method starts from the last initial mask, which includes the others. The clocks may differ
        # slightly, hence the maximum.
        costs["own_prune_seconds"] = max(0.0, total - drawn - (initial[-1] if initial else 0.0))
    return costs


def _highest(peaks: Sequence[int | None]) -> int | None:
    return max((peak for peak in peaks if peak is not None), default=None)


__all__ = ["ABSENT", "BEFOREHAND", "INITIAL", "PRUNE", "prune_costs"]
