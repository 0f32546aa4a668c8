"""What a prune cost, from a record's phases and what it shared with other cells."""

from __future__ import annotations

from collections.abc import Sequence

from suite.results.records.record import PhaseCost, SharedPart

BEFOREHAND = ("calibrate", "allocate")
INITIAL, PRUNE = "initial", "prune"
ABSENT = {
    "peak_device_bytes": "no accelerator in use",
    "prune_energy_joules": "this machine does not count energy",
}
"""Why there is no value, by metric."""


def prune_costs(phases: Sequence[PhaseCost], shared: Sequence[SharedPart]) -> dict[str, float | None]:
    """The metrics of a prune's cost; none where nothing was pruned.

    `prune_seconds` is end to end, as if the cell had been alone: what another cell spent on the initial
    prune is in it. `own_prune_seconds` is without the calibration set and the initial prune, whoever made
    them; it is there where the record says what they took.

    Args:
        phases: of the record.
        shared: likewise.
    """
    prune = next((phase for phase in phases if phase.name == PRUNE), None)
    if prune is None:
        return {}
    parts = [prune, *(phase for phase in phases if phase.name == INITIAL)]
    beforehand = sum(phase.seconds for phase in phases if phase.name in BEFOREHAND)
    whole = sum(phase.seconds for phase in parts) + beforehand
    joules = [phase.energy_joules for phase in parts if phase.energy_joules is not None]
    costs: dict[str, float | None] = {
        "prune_seconds": whole,
        "peak_host_bytes": _highest([phase.peak_host_bytes for phase in parts]),
        "peak_device_bytes": _highest([phase.peak_device_bytes for phase in parts]),
        "prune_energy_joules": sum(joules) if len(joules) == len(parts) else None,
    }
    if shared:
        initial = [part.seconds for part in shared if part.what == "initial mask"]
        drawn = sum(part.seconds for part in shared if part.what == "calibration")
        # The last is the one the method starts from; others were parts of it. Clocks may differ by a hair.
        costs["own_prune_seconds"] = max(0.0, whole - drawn - (initial[-1] if initial else 0.0))
    return costs


def _highest(peaks: Sequence[int | None]) -> int | None:
    return max((peak for peak in peaks if peak is not None), default=None)


__all__ = ["ABSENT", "BEFOREHAND", "INITIAL", "PRUNE", "prune_costs"]
