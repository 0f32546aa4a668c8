"""The results of verification as lines of text and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from suite.results.verification import CheckedRecord, Finding, Verification, one_line

if TYPE_CHECKING:
    from suite.running.rerun import Rerun

FEW = 20
"""With at most this many records, each gets a line, and all remarks are printed."""

Passed = Literal["inconsistent", "different", "verified", "rerun"]
"""Result of a record: `inconsistent`; `different` (a rerun differed); `verified` (consistent, not rerun);
`rerun` (consistent, and a rerun agreed)."""


@dataclass(frozen=True)
class Verified:
    """All results of one call of `prunebench verify`.

    Attributes:
        records: results of single records and across records.
        of_checkpoints: findings about checkpoints.
        reruns: reruns of some of the records.
    """

    records: Verification
    of_checkpoints: tuple[Finding, ...] = ()
    reruns: tuple[Rerun, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings about records, checkpoints and reruns."""
        again = (finding for rerun in self.reruns for finding in rerun.findings)
        return (*self.records.all_findings, *self.of_checkpoints, *again)

    @property
    def n_problems(self) -> int:
        """Number of findings that are problems."""
        return sum(finding.level == "problem" for finding in self.findings)

    def passed(self, record: CheckedRecord) -> Passed:
        """Returns the result of a record; a problem across records counts for the record that it names."""
        findings = (*record.findings, *(f for f in self.records.findings if f.path == record.path))
        if any(finding.level == "problem" for finding in findings):
            return "inconsistent"
        outcome = next((rerun.outcome for rerun in self.reruns if rerun.path == record.path), None)
        if outcome == "different":
            return "different"
        return "rerun" if outcome == "equal" else "verified"


def as_lines(verified: Verified, *, everything: bool) -> Iterator[str]:
    """Yields problems, remarks, the result of each record, and a last line with their counts.

    Args:
        verified: the results.
        everything: whether to include all remarks and records even if there are more than `FEW` records.
    """
    records = verified.records.records
    shown = everything or len(records) <= FEW
    # Findings of reruns are always shown, as reruns were asked for.
    again = {id(finding) for rerun in verified.reruns for finding in rerun.findings}
    for finding in verified.findings:
        if shown or finding.level == "problem" or id(finding) in again:
            yield str(finding)
    passed = {record.path: verified.passed(record) for record in records}
    for record in records:
        if shown or passed[record.path] in ("rerun", "different"):
            yield f"{one_line(str(record.path))}: {passed[record.path]}"
    counts = [_count(len(records), "record")]
    for level in ("inconsistent", "different", "rerun", "verified"):
        if n := list(passed.values()).count(level):
            counts.append(f"{n} {level}")
    n_remarks = len(verified.findings) - verified.n_problems
    hidden = " (--all shows them)" if n_remarks and not shown else ""
    ending = f"{_count(verified.n_problems, 'problem')}, {_count(n_remarks, 'remark')}{hidden}"
    yield f"{', '.join(counts)}; {ending}"


def as_json_report(verified: Verified) -> dict[str, Any]:
    """Returns all results as JSON values."""
    outcomes = {rerun.path: rerun.outcome for rerun in verified.reruns}
    return {
        "records": [
            {
                "path": str(record.path),
                "cell": None if record.record is None else record.record.cell.label,
                "cell_digest": None if record.record is None else record.record.cell.digest,
                "status": None if record.record is None else record.record.status,
                "passed": verified.passed(record),
                "checks": list(record.checks),
                "rerun": outcomes.get(record.path),
            }
            for record in verified.records.records
        ],
        "findings": [{**asdict(finding), "path": str(finding.path)} for finding in verified.findings],
        "problems": verified.n_problems,
        "remarks": len(verified.findings) - verified.n_problems,
    }


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


__all__ = ["Verified", "as_json_report", "as_lines"]
