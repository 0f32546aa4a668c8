"""Replaces the baseline with a candidate's records, on explicit request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError
from suite.results.gate.gate_inputs import Side
from suite.results.records.index import RECORD_SUFFIX
from suite.results.records.store import SAMPLES_SUFFIX, ResultStore
from suite.storage.files import FileLayer


@dataclass(frozen=True)
class Update:
    """The outcome of an update.

    Attributes:
        written: records that were added or replaced.
        removed: records of cells that the candidate does not have.
    """

    written: tuple[Path, ...]
    removed: tuple[Path, ...]


def update_baseline(folder: Path, candidate: Side, *, files: FileLayer | None = None) -> Update:
    """Replaces the results tree `folder` with byte-for-byte copies of the candidate's records.

    Each record is replaced atomically after its side file is written, and old files are removed last: a
    reader always finds either the old record or the new one. If the update is interrupted or fails, some
    cells are old and some new; repeating the call completes it.

    Args:
        folder: the baseline; made if it does not exist.
        candidate: the candidate; all of its cells must have numbers.
        files: the file operations.

    Raises:
        InputError: a cell of the candidate failed or was never stored, or `folder` is a file, or is or
            contains the candidate itself.
        OSError: the folder is not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a baseline is a folder of records")
    for entry in candidate.entries:
        if entry.record.status == "failed":
            raise InputError(f"{entry.record.cell.label} failed: a baseline needs numbers of every cell")
        if entry.path is None:
            raise InputError(f"{entry.record.cell.label} was not stored: a baseline is made of files")
        if entry.path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder}: is the candidate itself, or contains it")
    files = files or FileLayer()
    store = ResultStore(folder, files=files)
    copied = [store.adopt(entry.path, entry.record) for entry in candidate.entries if entry.path is not None]
    kept = {path for paths in copied for path in paths}
    records, side_files = (
        [path for path in sorted(folder.glob(f"*/*--*--*{suffix}")) if path not in kept]
        for suffix in (RECORD_SUFFIX, SAMPLES_SUFFIX)
    )
    for removed in (records, side_files):
        for path in removed:
            files.remove(path)
        # Otherwise a power failure could bring back a removed record without its side file.
        for place in dict.fromkeys(path.parent for path in removed):
            files.sync_folder(place)
    return Update(written=tuple(paths[0] for paths in copied), removed=tuple(records))


__all__ = ["Update", "update_baseline"]
