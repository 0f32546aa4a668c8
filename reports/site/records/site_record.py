"""Reads the input of a site: every record below some folders, verified, without its large parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reports.site.files.folder import SiteError
from reports.site.records.trust import Judgement, Trust, judge
from suite.results.records.index import StoredRecord, UnreadableRecord, read_again, record_files
from suite.results.records.reading import RecordError, load_record
from suite.results.records.record import Record
from suite.results.verification import CheckedRecord, Finding, verify_files
from suite.results.verification.tree_checks import check_across


@dataclass(frozen=True, kw_only=True)
class SiteRecord(StoredRecord):
    """A record of the site, with the data that an index has.

    Attributes:
        schema_version: schema version of its file.
        checks: the checks of its verification that applied to it.
        judgement: how far it can be trusted.
    """

    schema_version: int
    checks: tuple[str, ...]
    judgement: Judgement

    @property
    def trust(self) -> Trust:
        """Its level of trust."""
        return self.judgement.trust

    @property
    def is_ranked(self) -> bool:
        """Whether it has numbers and no finding contradicts them."""
        return self.record.status == "complete" and self.trust in ("rerun", "verified")


@dataclass(frozen=True)
class Holdings:
    """All records below the folders.

    Attributes:
        records: newest first; copies of a file count once.
        unreadable: files that should be records but are not valid.
    """

    records: tuple[SiteRecord, ...]
    unreadable: tuple[UnreadableRecord, ...]

    @property
    def ranked(self) -> tuple[SiteRecord, ...]:
        """The records that may be ranked."""
        return tuple(held for held in self.records if held.is_ranked)


def read_holdings(paths: Sequence[Path], reruns: Sequence[Path] = ()) -> Holdings:
    """Reads and verifies every record below `paths`.

    Args:
        paths: folders, searched at any depth, or single record files.
        reruns: folders written by `prunebench verify --rerun --keep`.

        Raises:
        SiteError: a folder or file does not exist.
    """
    read: dict[str, CheckedRecord] = {}
    unreadable: list[UnreadableRecord] = []
    for checked in verify_files(_files(paths)):
        if checked.stored is not None:
            read.setdefault(checked.stored.digest, checked)
        elif checked.path.exists():  # else a running suite has replaced it since the folder was listed
            unreadable.append(UnreadableRecord(checked.path, "; ".join(f.message for f in checked.findings)))
    across: dict[Path, list[Finding]] = defaultdict(list)
    for finding in check_across(list(read.values())):
        across[finding.path].append(finding)
    again = _reruns(reruns)
    stored = {digest: checked.stored for digest, checked in read.items() if checked.stored is not None}
    newest = _newest(stored.values())
    held = [
        _held(one, read[digest], across[one.path], again[one.cell_digest], is_newest=digest in newest)
        for digest, one in stored.items()
    ]
    held.sort(key=lambda one: (one.created, one.digest), reverse=True)
    return Holdings(tuple(held), tuple(unreadable))


def whole(held: SiteRecord) -> tuple[Record, bytes]:
    """Reads the record with its modules and answers, and the bytes of its file.

    Raises:
        SiteError: the file was removed or replaced since it was verified.
    """
    try:
        return read_again(held)
    except RecordError:
        message = "was replaced while the site was built; run the command again"
        raise SiteError(f"{held.path}: {message}") from None


def _files(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if not path.exists():
            raise SiteError(f"{path}: no such folder of records")
    return list(record_files(paths))


def _reruns(paths: Sequence[Path]) -> defaultdict[str, list[Record]]:
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for path in _files(paths):
        with suppress(FileNotFoundError, RecordError):
            record = load_record(path)
            # Keep the digest: it distinguishes a rerun from a copy of the record.
            found[record.cell.digest].append(record.model_copy(update={"modules": ()}))
    return found


def _newest(stored: Iterable[StoredRecord]) -> set[str]:
    """Returns the digests of the newest finished record of every cell."""
    newest: dict[str, StoredRecord] = {}
    for one in stored:
        if one.record.status == "complete" and one.created > newest.setdefault(one.cell_digest, one).created:
            newest[one.cell_digest] = one
    return {one.digest for one in newest.values()}


def _held(
    stored: StoredRecord,
    checked: CheckedRecord,
    across: Sequence[Finding],
    reruns: Sequence[Record],
    *,
    is_newest: bool,
) -> SiteRecord:
    record = stored.record
    if reruns and record.status == "complete":
        # Read it in full to compare answers too, and to recognize a copy by its digest.
        with suppress(FileNotFoundError, RecordError):
            record = load_record(stored.path)
    findings = (*checked.findings, *across)
    return SiteRecord(
        path=stored.path,
        record=stored.record,
        digest=stored.digest,
        schema_version=checked.schema_version,
        checks=checked.checks,
        judgement=judge(stored.path, record, findings, reruns, is_newest=is_newest),
    )
