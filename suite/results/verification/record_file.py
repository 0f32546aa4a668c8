"""The record's file: whether it can be read as a whole, and whether it stands where it belongs."""

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
"""The code that would run a cell now; None where its method is not known here."""


@dataclass(frozen=True)
class ReadRecord:
    """A record file after it was read.

    Attributes:
        path: the file.
        record: what it says; None where it cannot be read.
        schema_version: of the file; the present one where it cannot be read.
        findings: of reading it.
        digest: the record's, as the file has it; empty where it cannot be read.
    """

    path: Path
    record: Record | None
    schema_version: int
    findings: tuple[Finding, ...]
    digest: str = ""


def check_bytes(path: Path, data: bytes) -> ReadRecord:
    """Reads a record from the bytes of its file.

    Args:
        path: of the file; not read.
        data: what it holds.
    """
    try:
        found = read_record(data, origin=str(path))
    except RecordError as error:
        problem = Finding(path, "file", "problem", one_line(error.reason))
        return ReadRecord(path, None, SCHEMA_VERSION, (problem,))
    findings = []
    if not data.endswith(b"\n"):
        # JSON is whole without it, and so nobody else would notice that the last byte is gone.
        findings.append(Finding(path, "file", "problem", "is cut short: the final line end is missing"))
    version = found.schema_version
    if version != SCHEMA_VERSION:
        message = f"has schema version {version} and was read as {SCHEMA_VERSION}"
        findings.append(Finding(path, "file", "remark", message))
    return ReadRecord(path, found.sealed(), version, tuple(findings), found.record.body_digest)


def check_name(subject: Subject) -> Iterator[Finding]:
    """The file's name and folder."""
    record, path = subject.record, subject.path.absolute()
    due = record.cell.stem + (RECORD_SUFFIX if record.status == "complete" else FAILED_SUFFIX)
    if path.name != due:
        yield subject.problem("name", f"holds the {record.status} record of {record.cell.label}: {due}")
    if path.parent.name != record.cell.folder:
        yield subject.problem(
            "name", f"lies in folder {path.parent.name}, and its model's is {record.cell.folder}"
        )


def check_created(subject: Subject) -> Iterator[Finding]:
    """The time it was made."""
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
    """What is known of the code that made it."""
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
    """Whether the present code is another than that which made it."""
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
