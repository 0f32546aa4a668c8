"""Caveats that weaken the verdict of a gate run."""

from __future__ import annotations

from collections.abc import Iterator

from suite.results.gate.gate_inputs import Side
from suite.results.gate.tolerances import Tolerances
from suite.results.records.record import CodeVersion
from suite.results.records.state import describe_failure

DECIDING = ("torch", "transformers")
"""Packages of which a different version alone may change a number."""


def codes_of(side: Side) -> tuple[CodeVersion, ...]:
    """Returns the distinct versions of the code that made the records of a side."""
    found = {entry.record.code.source_digest: entry.record.code for entry in side.entries}
    return tuple(found.values())


def remarks_on(baseline: Side, candidate: Side, tolerances: Tolerances) -> Iterator[str]:
    """Yields one sentence per caveat: old records, failed attempts, package versions, unused tolerances."""
    for role, side in (("baseline", baseline), ("candidate", candidate)):
        if _is_mixed(side):
            yield (
                f"the {role}'s records were made by several versions of the code: some may be left from an "
                "earlier run (prunebench run --existing rerun-stale)"
            )
        for entry in side.entries:
            if entry.failure is not None:
                yield (
                    f"the {role} has a failed attempt at {entry.record.cell.label} beside its numbers: "
                    f"{describe_failure(entry.failure)}"
                )
    for name in DECIDING:
        versions = [_versions(side, name) for side in (baseline, candidate)]
        if versions[0] != versions[1]:
            one, other = (" and ".join(sorted(found)) or "an unknown one" for found in versions)
            yield f"{name} was another: {one}, now {other}; a change may be its own"
    measured = {m.protocol for side in (baseline, candidate) for e in side.entries for m in e.record.metrics}
    for name, tolerance in tolerances.metrics.items():
        for protocol in tolerance.protocols:
            if protocol not in measured:
                yield f"the tolerance of {name} on {protocol!r} is idle: no record has that protocol"


def _is_mixed(side: Side) -> bool:
    if len(codes_of(side)) > 1:
        return True
    versions: dict[str, set[int | None]] = {}
    for entry in side.entries:
        versions.setdefault(entry.record.cell.method, set()).add(entry.record.code.method_version)
    return any(len(found) > 1 for found in versions.values())


def _versions(side: Side, package: str) -> set[str]:
    found = {entry.record.environment.packages.get(package) for entry in side.entries}
    return {version for version in found if version is not None}


__all__ = ["codes_of", "remarks_on"]
