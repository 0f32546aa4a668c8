"""How far a record can be trusted: whether it is consistent, and whether running its cell again agreed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.results.records.record import Record
from suite.results.records.state import code_difference, describe_failure
from suite.results.verification import Finding
from suite.results.verification.checked_record import Subject
from suite.results.verification.rerun_comparison import compare_rerun, input_that_differs

Trust = Literal["rerun", "verified", "different", "inconsistent"]

TRUST_WORDS: Mapping[Trust, str] = {
    "rerun": "its cell was run again and gave the same masks and numbers",
    "verified": "whole and consistent with itself; nobody has run its cell again here",
    "different": "its cell was run again with different results",
    "inconsistent": "damaged, or in contradiction with itself or with another record",
}
"""What each word means for a record; docs/trust.md has the long form."""


@dataclass(frozen=True)
class Judgement:
    """The trust in a record, and the reasons.

    Attributes:
        trust: the level of trust.
        findings: problems and remarks; those of its reruns come last.
        reruns: digests of the records of reruns that it was compared with.
    """

    trust: Trust
    findings: tuple[Finding, ...]
    reruns: tuple[str, ...] = ()


def judge(
    path: Path,
    record: Record,
    findings: Iterable[Finding],
    reruns: Iterable[Record],
    *,
    is_newest: bool = True,
) -> Judgement:
    """Judges a record by the findings of its verification and by the reruns of its cell.

    Args:
        path: its file.
        record: its contents.
        findings: findings of its verification.
        reruns: records of the same cell from a folder of reruns. A rerun with other inputs, a failed one and
            a copy of the record are no evidence.
        is_newest: whether it is the newest record of its cell here. An older record may be from older code; a
            rerun by other code cannot refute it, and it stays in the history.
    """
    found = list(findings)
    if any(finding.level == "problem" for finding in found):
        return Judgement("inconsistent", tuple(found))
    agreed, disagreed, compared = False, False, []
    if record.status == "complete":
        for rerun in reruns:
            if rerun.body_digest == record.body_digest:
                continue
            if not is_newest and code_difference(record.code, rerun.code) is not None:
                continue
            compared.append(rerun.body_digest)
            rerun_findings = _compared(path, record, rerun)
            found += rerun_findings
            disagreed |= any(finding.level == "problem" for finding in rerun_findings)
            # Another machine may legitimately prune other weights, but then the masks of the record are not
            # confirmed.
            agreed |= _proves(record, rerun, rerun_findings)
    trust: Trust = "different" if disagreed else "rerun" if agreed else "verified"
    return Judgement(trust, tuple(found), tuple(compared))


def _compared(path: Path, record: Record, rerun: Record) -> list[Finding]:
    subject = Subject(path, record)
    if rerun.status != "complete":
        return [subject.remark("rerun", f"a rerun failed, which proves nothing: {describe_failure(rerun)}")]
    if (other := input_that_differs(record, rerun)) is not None:
        return [subject.remark("rerun", f"a rerun proves nothing: {other}")]
    try:
        return list(compare_rerun(subject, rerun))
    except (KeyError, ValueError):  # a protocol is missing, or two lists differ in length
        return [subject.problem("rerun", "a rerun has other windows or questions than the record")]


def _proves(record: Record, rerun: Record, findings: Iterable[Finding]) -> bool:
    return (
        rerun.status == "complete"
        and record.mask_digest == rerun.mask_digest
        and input_that_differs(record, rerun) is None
        and not any(finding.level == "problem" for finding in findings)
    )
