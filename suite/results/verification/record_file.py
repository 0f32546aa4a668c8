"""Checks the file of a record: whether it is complete, has the right name, and was made by known code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from suite.cell import Cell
from suite.results.records.index import FAILED_SUFFIX, RECORD_SUFFIX
from suite.results.records.reading import RecordError, read_record
from suite.results.records.record import SCHEMA_VERSION, CodeVersion, Record
from suite.results.records.state import code_difference
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding, one_line

PresentCode = Callable[[Cell], CodeVersion | None]
"""Function that returns the code that would run a cell now; None if its method is not installed."""


@dataclass(frozen=True)
class ReadRecord:
    """The result of reading the file of a record.

    Attributes:
        path: the file.
        record: the record; None if the file is unreadable.
        schema_version: schema version of the file; the current one if the file is unreadable.
        findings: findings from reading the file.
        digest: digest stored in the file; empty if the file is unreadable.
    """

    path: Path
    record: Record | None
    schema_version: int
    findings: tuple[Finding, ...]
    digest: str = ""


def check_bytes(path: Path, data: bytes) -> ReadRecord:
    """Reads a record from the bytes of its file.

    Args:
        path: path of the file, which is not read here.
        data: content of the file.
    """
    try:
        found = read_record(data, origin=str(path))
    except RecordError as error:
        problem = Finding(path, "file", "problem", one_line(error.reason))
        return ReadRecord(path, None, SCHEMA_VERSION, (problem,))
    findings = []
    if not data.endswith(b"\n"):
        # The JSON is complete without the last byte, so no other check notices that it is missing.
        findings.append(Finding(path, "file", "problem", "is cut short: the final line end is missing"))
    version = found.schema_version
    if version != SCHEMA_VERSION:
        message = f"has schema version {version} and was read as {SCHEMA_VERSION}"
        findings.append(Finding(path, "file", "remark", message))
    return ReadRecord(path, found.sealed(), version, tuple(findings), found.record.body_digest)


def check_name(subject: Subject) -> Iterator[Finding]:
    """Checks the name and folder of the file."""
    record, path = subject.record, subject.path.absolute()
    due = record.cell.stem + (RECORD_SUFFIX if record.status == "complete" else FAILED_SUFFIX)
    if path.name != due:
        yield subject.problem("name", f"holds the {record.status} record of {record.cell.label}: {due}")
    if path.parent.name != record.cell.folder:
        yield subject.problem(
            "name", f"lies in folder {path.parent.name}, and its model's is {record.cell.folder}"
        )


def check_created(subject: Subject) -> Iterator[Finding]:
    """Checks the time at which the record was made."""
    written = subject.record.created
    try:
        created = datetime.fromisoformat(written)
    except ValueError:
        yield subject.problem("created", f"created is {written!r}, which is no time in ISO 8601")
        return
    if created.utcoffset() != timedelta(0):
        yield subject.problem("created", f"created is {written!r}, which is not in UTC")
    elif created > datetime.now(UTC):
        yield subject.remark("created", f"created is {written}, which lies ahead: a clock was wrong")


def check_code(subject: Subject) -> Iterator[Finding]:
    """Remarks on missing information about the code that made the record."""
    made_by = subject.record.code
    if made_by.git_commit is None:
        yield subject.remark("code", "made by an installed package or a copy: the commit is not known")
    elif made_by.git_clean is None:
        yield subject.remark("code", "whether the working tree was clean is not known")
    elif not made_by.git_clean:
        yield subject.remark(
            "code", f"the working tree was not clean: commit {made_by.git_commit[:12]} is not all of the code"
        )


def check_present_code(subject: Subject, present: PresentCode) -> Iterator[Finding]:
    """Remarks if the current code differs from the code that made the record."""
    now = present(subject.record.cell)
    if now is None:
        method = subject.record.cell.method
        yield subject.remark("code", f"method {method!r} is not installed: it may be stale")
    elif (difference := code_difference(subject.record.code, now)) is not None:
        yield subject.remark("code", f"is stale: {difference}")


__all__ = [
    "PresentCode",
    "ReadRecord",
    "check_bytes",
    "check_code",
    "check_created",
    "check_name",
    "check_present_code",
]
