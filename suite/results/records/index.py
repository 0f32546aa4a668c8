"""The index of records: the parts of records that reports, histories and boards need of thousands at once.

The modules, divergences by window and answers in the record of a large model take hundreds of kilobytes of
memory. Every file is read and checked completely, as by `load_record`, but the parts that only a few pages
show are dropped from memory; `read_again` reads them when needed.
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
"""Glob pattern for the file names of records, including failed ones."""
MLFLOW_ARTIFACTS = "mlflow-artifacts"
"""The folder inside a results tree into which `--track mlflow` copies records."""
NO_DATE = datetime.min.replace(tzinfo=UTC)
_COMMON = ("code", "environment", "model", "checkpoint", "calibration", "answers")
_COMMON_OF_CELL = ("allocation", "calibration", "perplexity", "tasks", "answers", "speed")


@dataclass(frozen=True)
class StoredRecord:
    """A record and its file.

    Attributes:
        path: the file.
        record: the record. In an index it lacks modules, divergences by window and the texts of answers. It
            also lacks the digest there, because the digest of the file would not match the shortened record.
        digest: the digest that is stored in the file.
        failure: the failed attempt at the same cell that is stored beside a finished record, if any.
    """

    path: Path
    record: Record
    digest: str
    failure: StoredRecord | None = None

    @cached_property
    def created(self) -> datetime:
        """Time at which the record was made, in UTC; `NO_DATE` if its date cannot be parsed."""
        try:
            found = datetime.fromisoformat(self.record.created)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        # Not a date, or one that the conversion to UTC moves out of the range of `datetime`.
        except (ValueError, OverflowError):
            return NO_DATE

    @cached_property
    def cell_digest(self) -> str:
        """Digest of the record's cell; equal for records of the same cell."""
        return self.record.cell.digest


@dataclass(frozen=True)
class UnreadableRecord:
    """A file that should contain a record but does not; `reason` describes why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Contents:
    """The readable and unreadable records in a list of files, in the order of the files."""

    records: tuple[StoredRecord, ...]
    unreadable: tuple[UnreadableRecord, ...]


def record_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yields the files of all records below `paths`, including failed ones, each once and sorted by name.

    Args:
        paths: folders, which are searched recursively and may contain one another, or files of records.

    Raises:
        InputError: a folder or file does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such folder of records")
        root = path.resolve()
        for file in [path] if path.is_file() else sorted(path.rglob(RECORD_NAMES)):
            below = file.relative_to(path)
            # Copies made for a tracker are not counted as records.
            place = file.resolve() if file.is_symlink() else root / below
            if MLFLOW_ARTIFACTS not in below.parts and place not in seen:
                seen.add(place)
                yield file


def read_index(files: Sequence[Path], *, workers: int | None = None) -> Contents:
    """Reads the records in files, without their large parts.

    Args:
        files: the files of records; files that no longer exist are left out, because runs replace them.
        workers: number of reading processes (`in_batches`).

    Returns:
        The records (for a cell with a finished and a failed record the finished one), and unreadable files.
    """
    return _contents(in_batches(_read_batch, files, workers))


def read_whole(files: Iterable[Path]) -> Contents:
    """Reads the records in files like `read_index`, but completely."""
    return _contents(_read_one(file, None) for file in files)


def read_again(stored: StoredRecord) -> tuple[Record, bytes]:
    """Reads a record of an index completely; returns it as `load_record` does, and the bytes of its file.

    Raises:
        RecordError: the file is gone, was replaced since the index was read, or is no longer readable.
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


class RecordShortener:
    """Removes the large parts from records, and lets records share equal parts to save memory."""

    def __init__(self) -> None:
        self._parts: dict[Any, Any] = {}
        self._names: dict[frozenset[str], set[str]] = {}

    def __call__(self, record: Record) -> Record:
        """Returns the record without its large parts; the argument and the result share the other parts."""
        if record.answers is not None:
            record = record.model_copy(update={"answers": record.answers.model_copy(update={"answers": ()})})
        cell = record.cell.model_copy(update=self._common(record.cell, _COMMON_OF_CELL))
        without: dict[str, Any] = {"modules": (), "divergences": (), "body_digest": ""}
        slim = record.model_copy(update={**self._common(record, _COMMON), **without, "cell": cell})
        # Each object keeps the set of the fields that were given, which takes more memory than the values.
        for part in (slim, cell, *slim.phases, *slim.metrics, *slim.windows, *slim.tasks):
            given = frozenset(part.model_fields_set)
            shared = self._names.setdefault(given, part.model_fields_set)
            object.__setattr__(part, "__pydantic_fields_set__", shared)
        return slim

    def _common(self, of: BaseModel, names: Sequence[str]) -> dict[str, Any]:
        common = {}
        for name in names:
            part = getattr(of, name)
            # Parts are compared by their JSON, which distinguishes 1 from 1.0 and the order of keys.
            common[name] = self._parts.setdefault((type(of), name, to_json(part)), part)
        return common


_Read = StoredRecord | UnreadableRecord | None
"""Result of reading a file; None if the file no longer exists."""


def _read_batch(files: Sequence[Path]) -> list[_Read]:
    slim = RecordShortener()
    return [_read_one(file, slim) for file in files]


def _read_one(path: Path, slim: RecordShortener | None) -> _Read:
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
    "RecordShortener",
    "StoredRecord",
    "UnreadableRecord",
    "read_again",
    "read_index",
    "read_whole",
    "record_files",
]
