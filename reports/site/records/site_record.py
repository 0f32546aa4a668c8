"""What a site is built from: every record below some folders, verified, without its bulk.

A record of a large model has megabytes of modules and answers, and a site has thousands of records. They are
read one by one; what only the record's own page shows is left behind and read again for that page.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reports.site.files.folder import SiteError
from reports.site.records.trust import Judgement, Trust, judge
from suite.results.records.archive import record_files
from suite.results.records.record import Record
from suite.results.records.store import UnreadableRecord
from suite.results.verification import CheckedRecord, Finding, check_bytes, verify_content
from suite.results.verification.tree_checks import check_across

_DENSE = "dense--dense--"


@dataclass(frozen=True)
class SiteRecord:
    """A record of the site.

    Attributes:
        path: its file.
        digest: of its body, as the file has it: reading an older schema changes the record's own.
        record: what it says, without modules, answers and divergences by window.
        created: when it was made; the beginning of time where that cannot be read.
        schema_version: of the file.
        checks: those of its verification that had something to look at.
        judgement: how far it can be trusted.
    """

    path: Path
    digest: str
    record: Record
    created: datetime
    schema_version: int
    checks: tuple[str, ...]
    judgement: Judgement

    @property
    def trust(self) -> Trust:
        """How far it can be trusted, in a word."""
        return self.judgement.trust

    @property
    def is_ranked(self) -> bool:
        """Whether it has numbers that nothing speaks against."""
        return self.record.status == "complete" and self.trust in ("rerun", "verified")


@dataclass(frozen=True)
class Holdings:
    """Everything below the folders.

    Attributes:
        records: newest first; copies of a file count once.
        unreadable: what should be a record and is not.
    """

    records: tuple[SiteRecord, ...]
    unreadable: tuple[UnreadableRecord, ...]

    @property
    def ranked(self) -> tuple[SiteRecord, ...]:
        """Those that may be ranked."""
        return tuple(held for held in self.records if held.is_ranked)


@dataclass(frozen=True)
class _Read:
    """A record after its own verification."""

    digest: str
    schema_version: int
    checked: CheckedRecord
    record: Record


def read_holdings(paths: Sequence[Path], reruns: Sequence[Path] = ()) -> Holdings:
    """Reads and verifies every record below `paths`.

    Args:
        paths: folders, searched at any depth, or single records.
        reruns: folders that `prunebench verify --rerun --keep` wrote.

    Raises:
        SiteError: there is no such folder or file.
    """
    unreadable: list[UnreadableRecord] = []
    read: dict[str, _Read] = {}
    for folder in _by_folder(_files(paths)):
        for one in _verified(folder, unreadable):
            read.setdefault(one.digest, one)
    across: dict[Path, list[Finding]] = defaultdict(list)
    for finding in check_across([one.checked for one in read.values()]):
        across[finding.path].append(finding)
    again = _reruns(reruns)
    newest = _newest(read.values())
    held = [
        _held(one, across[one.checked.path], again[one.record.cell.digest], is_newest=one.digest in newest)
        for one in read.values()
    ]
    held.sort(key=lambda one: (one.created, one.digest), reverse=True)
    return Holdings(tuple(held), tuple(unreadable))


def whole(held: SiteRecord) -> tuple[Record, bytes]:
    """The record with its modules and answers, and the bytes of its file.

    Raises:
        SiteError: the file is gone or was replaced since it was verified.
    """
    try:
        data = held.path.read_bytes()
    except OSError:
        data = b""
    record = check_bytes(held.path, data).record
    if record is None or _stored_digest(data) != held.digest:
        raise SiteError(f"{held.path}: was replaced while the site was built; run the command again")
    return record, data


def _files(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if not path.exists():
            raise SiteError(f"{path}: no such folder of records")
    return list(record_files(paths))


def _by_folder(files: Iterable[Path]) -> list[list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    return list(folders.values())


def _verified(files: Sequence[Path], unreadable: list[UnreadableRecord]) -> Iterator[_Read]:
    """The records of one folder, each held against the dense ones beside it."""
    beside = sorted(files[0].parent.glob(f"{_DENSE}*.json"))
    dense = [
        record for path in beside if (record := _record_of(path)) is not None and record.status == "complete"
    ]
    for path in files:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # replaced by a running suite since the folder was listed
            continue
        except OSError as error:
            unreadable.append(UnreadableRecord(path, f"cannot be read: {error.strerror or error}"))
            continue
        read = check_bytes(path, data)
        if read.record is None:
            unreadable.append(UnreadableRecord(path, "; ".join(f.message for f in read.findings)))
            continue
        checked = verify_content(read, _side_file(path, read.record), dense=dense)
        slim = _without_bulk(read.record)
        stored = json.loads(data)
        light = CheckedRecord(path, slim, checked.checks, checked.findings)
        yield _Read(stored["body_digest"], stored["schema_version"], light, slim)


def _record_of(path: Path) -> Record | None:
    try:
        return check_bytes(path, path.read_bytes()).record
    except OSError:
        return None


def _side_file(path: Path, record: Record) -> bytes | None:
    if record.side_file is None:
        return None
    try:
        return path.with_name(record.side_file.name).read_bytes()
    except OSError:
        return None


def _without_bulk(record: Record) -> Record:
    # A digest that no longer fits would read as damage; verification has held it against the whole.
    return record.model_copy(update={"modules": (), "divergences": (), "answers": None, "body_digest": ""})


def _reruns(paths: Sequence[Path]) -> defaultdict[str, list[Record]]:
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for path in _files(paths):
        record = _record_of(path)
        if record is not None:
            # The digest stays here: it tells a rerun from a copy of the record.
            found[record.cell.digest].append(record.model_copy(update={"modules": ()}))
    return found


def _newest(read: Iterable[_Read]) -> set[str]:
    """The digests of the newest finished record of every cell."""
    newest: dict[str, _Read] = {}
    for one in read:
        if one.record.status != "complete":
            continue
        before = newest.setdefault(one.record.cell.digest, one)
        if _created(one.record.created) > _created(before.record.created):
            newest[one.record.cell.digest] = one
    return {one.digest for one in newest.values()}


def _held(read: _Read, across: Sequence[Finding], reruns: Sequence[Record], *, is_newest: bool) -> SiteRecord:
    path = read.checked.path
    findings = (*read.checked.findings, *across)
    record = read.record
    if reruns and record.status == "complete":
        # Answers are compared too, and the digest tells a copy.
        record = _record_of(path) or record
    return SiteRecord(
        path=path,
        digest=read.digest,
        record=read.record,
        created=_created(read.record.created),
        schema_version=read.schema_version,
        checks=read.checked.checks,
        judgement=judge(path, record, findings, reruns, is_newest=is_newest),
    )


def _created(written: str) -> datetime:
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:  # the first or last day there is, in another time zone
        return datetime.min.replace(tzinfo=UTC)


def _stored_digest(data: bytes) -> str:
    found = json.loads(data)["body_digest"]
    assert isinstance(found, str)
    return found
