"""Records without their bulk: what a report of thousands needs of all of them at once.

The modules, divergences by window and answers of a large model's record take hundreds of kilobytes of memory,
and to read it takes milliseconds. Here every file is read and checked whole, as `load_record` does, and what
only a few pages show is left behind: `full` reads it again. Many files are read by several processes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from suite.results.records.processes import in_processes
from suite.results.records.reading import RecordError, load_stored
from suite.results.records.record import Record
from suite.results.records.store import FAILED_SUFFIX, RECORD_NAMES, RECORD_SUFFIX, UnreadableRecord

MANY_FILES = 400
"""From here on several processes are quicker, although each takes a moment to start."""
MOST_WORKERS = 8
BATCH = 64
"""Files that a worker reads at a time: their records share what is equal in them."""
_READ_BATCH = "suite.results.records.outline:_read_batch"
_COMMON = ("code", "environment", "model", "checkpoint", "calibration")
_COMMON_OF_CELL = ("allocation", "calibration", "perplexity", "tasks", "answers", "speed")


@dataclass(frozen=True)
class Outline:
    """A record without its bulk.

    Attributes:
        path: its file.
        digest: the one it was sealed with, as the file has it.
        record: as `load_record` gives it, but without modules, divergences by window and answers, and without
            a digest: one that does not fit would read as damage.
        n_modules: how many modules the whole record has.
        n_divergences: on how many texts it has divergences by window.
        n_answers: how many answers it has.
        failure: the failed attempt at the same cell that stands beside a finished record, if any.
    """

    path: Path
    digest: str
    record: Record
    n_modules: int
    n_divergences: int
    n_answers: int
    failure: Outline | None = None


@dataclass(frozen=True)
class OutlineContents:
    """What `Contents` is to whole records: all of a results tree, in the order of file names."""

    records: tuple[Outline, ...]
    unreadable: tuple[UnreadableRecord, ...]


_Read = tuple[str, Record, int, int, int] | str | None
"""What became of a file: an outline's fields, why it cannot be read, or None where it is gone."""


def read_outlines(where: Path | Sequence[Path], *, workers: int | None = None) -> OutlineContents:
    """Reads every record of a results tree, as `ResultStore.records` does, and keeps its outline.

    Args:
        where: the tree's folder, or the files of records. A folder that does not exist is empty.
        workers: how many processes read; 1 = this one alone. None = as many as there are CPUs to use, if
            there are many files.

    Returns:
        The outlines, the finished one where a cell has both, and what cannot be read.
    """
    paths = sorted(where.glob(f"*/{RECORD_NAMES}") if isinstance(where, Path) else where)
    if workers is None:
        workers = min(_usable_cpus(), MOST_WORKERS) if len(paths) >= MANY_FILES else 1
    read: dict[Path, Outline] = {}
    unreadable: list[UnreadableRecord] = []
    for path, found in zip(paths, _read_all([str(path) for path in paths], workers), strict=True):
        if isinstance(found, str):
            unreadable.append(UnreadableRecord(path, found))
        elif found is not None:
            read[path] = Outline(path, *found)
    return OutlineContents(tuple(_one_a_cell(read)), tuple(unreadable))


def full(outline: Outline) -> Record:
    """The whole record, as `load_record` gives it.

    Raises:
        RecordError: it is gone, was replaced since the outline was read, or cannot be read any more.
    """
    origin = str(outline.path)
    try:
        stored = load_stored(outline.path)
    except FileNotFoundError as error:
        raise RecordError(origin, "is gone since it was first read") from error
    if stored.body_digest != outline.digest:
        raise RecordError(origin, "was replaced since it was first read")
    return stored.sealed()


def _one_a_cell(read: dict[Path, Outline]) -> Iterator[Outline]:
    for path, outline in read.items():
        stem = path.name.removesuffix(FAILED_SUFFIX).removesuffix(RECORD_SUFFIX)
        finished, failed = path.with_name(stem + RECORD_SUFFIX), path.with_name(stem + FAILED_SUFFIX)
        if path == finished:
            beside = read.get(failed)
            yield replace(outline, failure=beside) if beside is not None else outline
        elif finished not in read:
            yield outline


def _read_all(paths: Sequence[str], workers: int) -> list[_Read]:
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    with _no_collection():
        done = in_processes(_READ_BATCH, batches, workers) if workers > 1 else {}
        # A worker that could not start, or died, costs time and nothing else.
        missing = {place: _read_batch(batch) for place, batch in enumerate(batches) if place not in done}
    return [one for place in range(len(batches)) for one in (done | missing)[place]]


def _read_batch(paths: Sequence[str]) -> list[_Read]:
    slim = _Slimmer()
    return [_read_one(Path(path), slim) for path in paths]


def _read_one(path: Path, slim: _Slimmer) -> _Read:
    try:
        stored = load_stored(path)
    except FileNotFoundError:  # replaced by another process since the folder was listed
        return None
    except RecordError as error:
        return error.reason
    n_answers = len(stored.answers.answers) if stored.answers is not None else 0
    return stored.body_digest, slim(stored), len(stored.modules), len(stored.divergences), n_answers


class _Slimmer:
    """Takes the bulk from records, and lets them share what is equal in them."""

    def __init__(self) -> None:
        self._parts: dict[Any, Any] = {}
        self._names: dict[frozenset[str], set[str]] = {}

    def __call__(self, record: Record) -> Record:
        """The record without its bulk; its parts are now those of the result."""
        cell = record.cell.model_copy(update=self._common(record.cell, _COMMON_OF_CELL))
        slim = record.model_copy(
            update={
                **self._common(record, _COMMON),
                "cell": cell,
                "divergences": (),
                "answers": None,
                "modules": (),
                "body_digest": "",
            }
        )
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


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_collection() -> Iterator[None]:
    # Records refer to no cycles, and to look for some among millions of objects takes seconds.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


__all__ = ["Outline", "OutlineContents", "full", "read_outlines"]
