"""The results of verification, and the names of its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.results.records.index import StoredRecord
from suite.results.records.record import SCHEMA_VERSION, Record

Level = Literal["problem", "remark"]
"""`problem`: the record is damaged or inconsistent; `remark`: something a reader should know, not a fault."""

CHECKS: Mapping[str, str] = {
    "file": "complete JSON in UTF-8, a known schema, the digest it was sealed with, the final line end",
    "name": "the file's name and folder are those of its cell, and of a finished or a failed one",
    "created": "a time in UTC, in the past",
    "code": "the commit is known, the working tree was clean, the present code is the same",
    "cell": "the record has the model, calibration, threads and measurements that its cell asks for",
    "metrics": "each metric once, its value inside its interval, nothing that the cell did not ask for",
    "side-file": "it exists, with the digest, number of rows and columns that it should have",
    "items": "the side file's rows are the record's windows and questions, in order, and no others",
    "perplexity": "perplexity, error and interval follow from the windows' losses",
    "divergence": "KL divergence and agreement follow from their windows",
    "tasks": "scores, errors and intervals follow from the questions, outcomes from the main metric",
    "production": "shares, ranks and losses follow from the right answers of the questions",
    "flips": "flipped answers are a whole number of questions, and follow from the dense record at hand",
    "answers": "shares and means follow from the answers",
    "sparsity": "it follows from the modules, and these from their shapes and the pattern",
    "size": "packed sizes follow from the checkpoint's bytes and the modules",
    "cost": "prune time, memory and energy are those of the phases",
    "twice": "no cell has two records that contradict each other, or two in one tree",
    "weights": "records of one model and dtype have the same dense weights",
    "texts": "records of one model and protocol were measured on the same tokens",
    "leftover": "no side file without a record, no temporary or foreign file",
    "checkpoint": "pruning.json fits the weights beside it, and the record it is compared with",
    "mask": "the mask digest is that of the checkpoint's zeros",
    "rerun": "the cell, run again, has the same masks and numbers",
}
"""Maps the name of each check to what must be true."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        path: the record or other file that it concerns.
        check: name of the check, a key of `CHECKS`.
        level: severity.
        message: what was found and what was expected, in one line.
    """

    path: Path
    check: str
    level: Level
    message: str

    def __str__(self) -> str:
        return f"{one_line(str(self.path))}: {self.level} ({self.check}): {self.message}"


@dataclass(frozen=True)
class CheckedRecord:
    """A record file after verification.

    Attributes:
        path: the file.
        stored: the record, without its large parts if several files were verified; None if it is unreadable.
        checks: names of the checks that applied, in the order of `CHECKS`.
        findings: problems and remarks.
        schema_version: schema version of the file; the current one if the file is unreadable.
    """

    path: Path
    stored: StoredRecord | None
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def record(self) -> Record | None:
        """The record; None if the file is unreadable."""
        return None if self.stored is None else self.stored.record

    @property
    def is_consistent(self) -> bool:
        """Whether no check found a problem."""
        return not any(finding.level == "problem" for finding in self.findings)


@dataclass(frozen=True)
class Verification:
    """Records after verification, and the findings across several records.

    Attributes:
        records: the checked records, in the order of the paths.
        findings: findings across records, and about files that are not records.
    """

    records: tuple[CheckedRecord, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The findings of every record, then those across records."""
        return (*(f for record in self.records for f in record.findings), *self.findings)


def one_line(text: str) -> str:
    """Removes line breaks and escapes control characters, because untrusted text may reach a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.split()))


__all__ = ["CHECKS", "CheckedRecord", "Finding", "Level", "Verification", "one_line"]
