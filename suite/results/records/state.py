"""The state of a cell in a results tree: whether its record is complete, current and readable."""

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
    """The state of one cell in a results tree.

    Attributes:
        kind: `missing`; `complete`; `failed`; `stale` (finished, but by other code); `broken` (there is a
            record, but it is damaged or does not belong there).
        reason: explanation for a reader; empty if missing, or if complete and there is nothing to add.
        record: the record that the state was read from; None if missing or broken.
    """

    kind: Literal["missing", "complete", "failed", "stale", "broken"]
    reason: str = ""
    record: Record | None = None


def state_of(
    finished: Record | RecordError | None,
    failed: Record | RecordError | None,
    code: CodeVersion | Callable[[], CodeVersion],
) -> CellState:
    """Returns the state of a cell.

    Args:
        finished: the finished record, or the error on reading it, or None if there is none.
        failed: the record of a failed attempt, likewise.
        code: the current code version, or a function that returns it and is called only if needed.
    """
    if isinstance(finished, RecordError):
        return CellState("broken", str(finished))
    failure = describe_failure(failed) if isinstance(failed, Record) else ""
    also = f"there is also a record of a failed attempt: {failure}" if failure else ""
    if finished is not None:
        present = code() if callable(code) else code
        difference = code_difference(finished.code, present)
        if difference is None:
            return CellState("complete", also, finished)
        # A failure of the current code matters more than finished numbers of older code.
        if not isinstance(failed, Record) or code_difference(failed.code, present) is not None:
            return CellState("stale", "; ".join(filter(None, (difference, also))), finished)
    if isinstance(failed, RecordError):
        return CellState("broken", str(failed))
    return CellState("missing") if failed is None else CellState("failed", failure, failed)


def code_difference(made_by: CodeVersion, present: CodeVersion) -> str | None:
    """Describes why two code versions may produce different numbers; None if they must be the same."""
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
    """Describes in one line why a record failed; empty for a complete record."""
    failure = record.failure
    if failure is None:
        return ""
    first_line = next(iter(failure.message.splitlines()), "")
    return f"{failure.error} in phase {failure.phase}: {first_line}"


def check_side_file(path: Path, record: Record) -> str | None:
    """Describes what is wrong with the side file of the record in file `path`; None if it is intact."""
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
