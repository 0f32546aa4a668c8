"""A candidate's records become the baseline, on purpose."""

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
    """What an update did.

    Attributes:
        written: records that are new, or that took another's place.
        removed: records of cells that the candidate does not have.
    """

    written: tuple[Path, ...]
    removed: tuple[Path, ...]


def update_baseline(folder: Path, candidate: Side, *, files: FileLayer | None = None) -> Update:
    """Makes the results tree `folder` hold the candidate's records, to the byte, and no others.

    Each record is put in its place in one step, its side file before it, and what the baseline had for the
    cell goes last: a reader finds the old record or the new one at every moment. Cut or failing in between,
    it leaves some cells old and some new; the same call again finishes it.

    Args:
        folder: the baseline; made if it is not there.
        candidate: all of whose cells have numbers.
        files: the file operations.

    Raises:
        InputError: a cell of the candidate failed or was never stored, or `folder` is a file, or the
            candidate itself.
        OSError: the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a baseline is a folder of records")
    for entry in candidate.entries:
        if entry.record.status == "failed":
            raise InputError(f"{entry.record.cell.label} failed: a baseline needs numbers of every cell")
        if entry.path is None:
            raise InputError(f"{entry.record.cell.label} was not stored: a baseline is made of files")
        if entry.path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder}: is the candidate itself, or holds it")
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
        # A record must not be back after a power cut that took its side file.
        for place in dict.fromkeys(path.parent for path in removed):
            files.sync_folder(place)
    return Update(written=tuple(paths[0] for paths in copied), removed=tuple(records))


__all__ = ["Update", "update_baseline"]
