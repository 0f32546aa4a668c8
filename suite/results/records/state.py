"""What a results tree holds for one cell, and why it may not be good enough."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.results.records.reading import RecordError
from suite.results.records.record import CodeVersion, Record


@dataclass(frozen=True)
class CellState:
    """What the tree holds for one cell.

    Attributes:
        kind: `missing`; `complete`; `failed`; `stale` (finished, but by other code); `broken` (there is a
            record, but it cannot be trusted).
        reason: why, for a reader; empty when missing, or complete with nothing to add.
        record: the record the state was read from; None when missing or broken.
    """

    kind: Literal["missing", "complete", "failed", "stale", "broken"]
    reason: str = ""
    record: Record | None = None


def state_of(
    finished: Record | RecordError | None,
    failed: Record | RecordError | None,
    code: CodeVersion | Callable[[], CodeVersion],
) -> CellState:
    """The state of a cell.

    Args:
        finished: its finished record, why that cannot be trusted, or None.
        failed: the record of a failed attempt, likewise.
        code: the present code, or a function that finds it, called only if it is needed.
    """
    if isinstance(finished, RecordError):
        return CellState("broken", str(finished))
    failure = describe_failure(failed) if isinstance(failed, Record) else ""
    also = f"a failed attempt is on record too: {failure}" if failure else ""
    if finished is not None:
        present = code() if callable(code) else code
        difference = code_difference(finished.code, present)
        if difference is None:
            return CellState("complete", also, finished)
        # The old numbers say nothing about the present code; a failure of its own does.
        if not isinstance(failed, Record) or code_difference(failed.code, present) is not None:
            return CellState("stale", "; ".join(filter(None, (difference, also))), finished)
    if isinstance(failed, RecordError):
        return CellState("broken", str(failed))
    return CellState("missing") if failed is None else CellState("failed", failure, failed)


def code_difference(made_by: CodeVersion, present: CodeVersion) -> str | None:
    """Why the numbers of code `made_by` may not be those of `present`; None where they must be."""
    if made_by.method_version != present.method_version:
        return f"made by version {made_by.method_version} of the method, now {present.method_version}"
    for part in sorted(made_by.part_versions.keys() | present.part_versions.keys()):
        then, now = made_by.part_versions.get(part), present.part_versions.get(part)
        if then != now:
            return f"made with version {then} of {part}, now {now}"
    if made_by.source_digest != present.source_digest:
        return (
            f"made by other code: prunebench {made_by.prunebench}, source {made_by.source_digest[:8]}, "
            f"now {present.prunebench}, {present.source_digest[:8]}"
        )
    return None


def describe_failure(record: Record) -> str:
    """Why a failed record has no numbers, in one line; empty for a complete one."""
    failure = record.failure
    if failure is None:
        return ""
    first_line = next(iter(failure.message.splitlines()), "")
    return f"{failure.error} in phase {failure.phase}: {first_line}"


def check_side_file(path: Path, record: Record) -> str | None:
    """What is wrong with the side file of the record in file `path`; None if nothing is."""
    side_file = record.side_file
    if side_file is None:
        return None
    try:
        data = path.with_name(side_file.name).read_bytes()
    except OSError as error:
        return f"its side file {side_file.name} cannot be read: {error.strerror or error}"
    found = hashlib.sha256(data).hexdigest()
    if found == side_file.sha256:
        return None
    return f"its side file {side_file.name} has digest {found[:12]}, not {side_file.sha256[:12]}"


__all__ = ["CellState", "check_side_file", "code_difference", "describe_failure", "state_of"]
