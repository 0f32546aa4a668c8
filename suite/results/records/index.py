"""The index of records: what reports, histories and boards need of thousands of them at once.

The modules, divergences by window and answers of a large model's record take hundreds of kilobytes of memory,
and to read it takes milliseconds. Every file is read and checked whole, as `load_record` does; what only a
few pages show is left behind, and `whole` reads it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from methods.errors import InputError
from suite.results.records.reading import RecordError, read_bytes, read_record
from suite.results.records.record import Record
from suite.storage.processes import in_batches

RECORD_SUFFIX = ".json"
FAILED_SUFFIX = ".failed.json"
RECORD_NAMES = f"*--*--*{RECORD_SUFFIX}"
"""Matches the names of records, of failed ones too."""
MLFLOW_ARTIFACTS = "mlflow-artifacts"
"""The folder of a results tree where `--track mlflow` copies its records to."""
NO_DATE = datetime.min.replace(tzinfo=UTC)
_COMMON = ("code", "environment", "model", "checkpoint", "calibration", "answers")
_COMMON_OF_CELL = ("allocation", "calibration", "perplexity", "tasks", "answers", "speed")


@dataclass(frozen=True)
class StoredRecord:
    """A record and its file.

    Attributes:
        path: the file.
        record: what it says. In an index without modules, divergences by window and the texts of answers, and
            without a digest: one that does not fit would read as damage.
        digest: the one the record was sealed with, as the file has it.
        failure: the failed attempt at the same cell that stands beside a finished record, if any.
    """

    path: Path
    record: Record
    digest: str
    failure: StoredRecord | None = None

    @cached_property
    def created(self) -> datetime:
        """When it was made, UTC; `NO_DATE` where that cannot be read."""
        try:
            found = datetime.fromisoformat(self.record.created)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        # No date, or the first or last day there is, in another time zone.
        except (ValueError, OverflowError):
            return NO_DATE

    @cached_property
    def cell_digest(self) -> str:
        """Of its cell, equal where the same was asked."""
        return self.record.cell.digest


@dataclass(frozen=True)
class UnreadableRecord:
    """A file that should be a record and is not; `reason` says why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Contents:
    """What some files hold, in the order of the files."""

    records: tuple[StoredRecord, ...]
    unreadable: tuple[UnreadableRecord, ...]


def record_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files of all records below `paths`, failed ones too, each once and in the order of names.

    Args:
        paths: folders, searched at any depth, which may lie in one another; a record's own file will do too.

    Raises:
        InputError: there is no such folder or file.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such folder of records")
        root = path.resolve()
        for file in [path] if path.is_file() else sorted(path.rglob(RECORD_NAMES)):
            below = file.relative_to(path)
            # A tracker's copies are no records of their own.
            place = file.resolve() if file.is_symlink() else root / below
            if MLFLOW_ARTIFACTS not in below.parts and place not in seen:
                seen.add(place)
                yield file


def read_index(files: Sequence[Path], *, workers: int | None = None) -> Contents:
    """The records in files, without their bulk.

    Args:
        files: of records; one that is gone is left out, since runs replace them.
        workers: how many processes read (`in_batches`).

    Returns:
        The records, the finished one where a cell has both, and what cannot be read.
    """
    return _contents(in_batches(_read_batch, files, workers))


def read_whole(files: Iterable[Path]) -> Contents:
    """As `read_index`, with all that the records say."""
    return _contents(_read_one(file, None) for file in files)


def read_again(stored: StoredRecord) -> tuple[Record, bytes]:
    """The whole record of an index, as `load_record` gives it, and the bytes of its file.

    Raises:
        RecordError: it is gone, was replaced since the index was read, or cannot be read any more.
    """
    origin = str(stored.path)
    try:
        data = read_bytes(stored.path)
    except FileNotFoundError as error:
        raise RecordError(origin, "is gone since it was first read") from error
    found = read_record(data, origin=origin)
    if found.record.body_digest != stored.digest:
        raise RecordError(origin, "was replaced since it was first read")
    return found.sealed(), data


class Slimmer:
    """Takes the bulk from records, and lets them share what is equal in them."""

    def __init__(self) -> None:
        self._parts: dict[Any, Any] = {}
        self._names: dict[frozenset[str], set[str]] = {}

    def __call__(self, record: Record) -> Record:
        """The record without its bulk; its parts are now those of the result."""
        if record.answers is not None:
            record = record.model_copy(update={"answers": record.answers.model_copy(update={"answers": ()})})
        cell = record.cell.model_copy(update=self._common(record.cell, _COMMON_OF_CELL))
        without: dict[str, Any] = {"modules": (), "divergences": (), "body_digest": ""}
        slim = record.model_copy(update={**self._common(record, _COMMON), **without, "cell": cell})
        # Each object has a set of the fields that were given, which takes more memory than their values.
        for part in (slim, cell, *slim.phases, *slim.metrics, *slim.windows, *slim.tasks):
            given = frozenset(part.model_fields_set)
            shared = self._names.setdefault(given, part.model_fields_set)
            object.__setattr__(part, "__pydantic_fields_set__", shared)
        return slim

    def _common(self, of: BaseModel, names: Sequence[str]) -> dict[str, Any]:
        common = {}
        for name in names:
            part = getattr(of, name)
            # By its text, which tells 1 from 1.0, and one order of keys from another.
            common[name] = self._parts.setdefault((type(of), name, to_json(part)), part)
        return common


_Read = StoredRecord | UnreadableRecord | None
"""What became of a file; None where it is gone."""


def _read_batch(files: Sequence[Path]) -> list[_Read]:
    slim = Slimmer()
    return [_read_one(file, slim) for file in files]


def _read_one(path: Path, slim: Slimmer | None) -> _Read:
    try:
        found = read_record(read_bytes(path), origin=str(path))
    except FileNotFoundError:  # replaced by another process since the folder was listed
        return None
    except RecordError as error:
        return UnreadableRecord(path, error.reason)
    digest = found.record.body_digest
    return StoredRecord(path, found.sealed() if slim is None else slim(found.record), digest)


def _contents(found: Iterable[_Read]) -> Contents:
    read: dict[Path, StoredRecord] = {}
    unreadable: list[UnreadableRecord] = []
    for one in found:
        if isinstance(one, StoredRecord):
            read[one.path] = one
        elif one is not None:
            unreadable.append(one)
    return Contents(tuple(_one_a_cell(read)), tuple(unreadable))


def _one_a_cell(read: dict[Path, StoredRecord]) -> Iterator[StoredRecord]:
    for path, stored in read.items():
        stem = path.name.removesuffix(FAILED_SUFFIX).removesuffix(RECORD_SUFFIX)
        finished, failed = path.with_name(stem + RECORD_SUFFIX), path.with_name(stem + FAILED_SUFFIX)
        if path == finished:
            yield replace(stored, failure=read.get(failed))
        elif finished not in read:
            yield stored


__all__ = [
    "FAILED_SUFFIX",
    "MLFLOW_ARTIFACTS",
    "NO_DATE",
    "RECORD_NAMES",
    "RECORD_SUFFIX",
    "Contents",
    "Slimmer",
    "StoredRecord",
    "UnreadableRecord",
    "read_again",
    "read_index",
    "read_whole",
    "record_files",
]
