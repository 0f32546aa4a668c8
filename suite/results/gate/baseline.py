"""A candidate's records become the baseline, on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError
from suite.results.files import FileLayer, replace_file
from suite.results.gate.sides import Side
from suite.results.reading import load_record
from suite.results.store import RECORD_SUFFIX, SAMPLES_SUFFIX


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
    cell goes last: a reader finds the old record or the new one at every moment.

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
    copied = [_adopt(entry.path, folder, files) for entry in candidate.entries if entry.path is not None]
    kept = {path for paths in copied for path in paths}
    removed = [path for path in sorted(_files_of_records(folder)) if path not in kept]
    for path in removed:
        files.remove(path)
    return Update(
        written=tuple(paths[0] for paths in copied),
        removed=tuple(path for path in removed if path.name.endswith(RECORD_SUFFIX)),
    )


def _adopt(source: Path, folder: Path, files: FileLayer) -> tuple[Path, ...]:
    """Copies a record and its side file; their new paths."""
    home = folder / source.parent.name
    home.mkdir(parents=True, exist_ok=True)
    record = load_record(source)
    copied = [] if record.side_file is None else [source.with_name(record.side_file.name)]
    for path in (*copied, source):
        replace_file(home / path.name, path.read_bytes(), files)
    files.sync_folder(home)
    return tuple(home / path.name for path in (source, *copied))


def _files_of_records(folder: Path) -> Iterator[Path]:
    """Records and side files, readable or not."""
    for suffix in (RECORD_SUFFIX, SAMPLES_SUFFIX):
        yield from folder.glob(f"*/*--*--*{suffix}")


__all__ = ["Update", "update_baseline"]
