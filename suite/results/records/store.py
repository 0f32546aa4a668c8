"""The results tree: one JSON file per cell with its per-item data beside it, consistent at every moment.

A finished record is `<folder>/<stem>.json`; the failure of a cell is `<folder>/<stem>.failed.json`, so that
a failing rerun never destroys existing numbers. The names of side files contain a token: a rerun writes a
new side file and keeps the old one until the new record is in place.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from suite.cell import Cell
from suite.results.records.index import (
    FAILED_SUFFIX,
    RECORD_NAMES,
    RECORD_SUFFIX,
    Contents,
    StoredRecord,
    read_index,
    read_whole,
)
from suite.results.records.reading import RecordError, load_record, record_bytes
from suite.results.records.record import CodeVersion, Record, SideFile
from suite.results.records.state import CellState, check_side_file, state_of
from suite.storage.files import FileLayer, replace_file
from suite.storage.leftovers import abandoned

if TYPE_CHECKING:
    import pandas as pd

SAMPLES_SUFFIX = ".samples.parquet"


class ResultStore:
    """Reads and writes one results tree; any number of processes may use the same one.

    Args:
        root: the folder of the tree; the first write makes it.
        files: the file operations; fault tests pass their own.
    """

    def __init__(self, root: Path, *, files: FileLayer | None = None) -> None:
        self.root = Path(root)
        self._files = files or FileLayer()

    def path_of(self, cell: Cell) -> Path:
        """Returns the path of the finished record of `cell`, whether it exists or not."""
        return self._base(cell, RECORD_SUFFIX)

    def failed_path_of(self, cell: Cell) -> Path:
        """Returns the path of the record of a failed attempt at `cell`, whether it exists or not."""
        return self._base(cell, FAILED_SUFFIX)

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        """Seals and stores a record, after its per-item data.

        The old record of the cell stays intact until the new one is renamed into place: whenever the process
        dies, a reader finds either the old record or the new one. A failed record never replaces a finished
        one.

        Args:
            record: a complete or failed record; its `side_file` and `body_digest` are filled in here.
            items: one row per item; None = no side file.

        Returns:
            The path of the record.

        Raises:
            OSError: the disk is full, the folder is not writable...; incomplete files are removed if
                possible.
        """
        complete = record.status == "complete"
        path = self.path_of(record.cell) if complete else self.failed_path_of(record.cell)
        replaced = _side_file_named_by(path)
        self._make_folders(path.parent)
        side_file: SideFile | None = None
        if items is not None:
            data = _parquet(items)
            # The token keeps apart the files of concurrent writers and of the record that is replaced.
            name = f"{path.name.removesuffix(RECORD_SUFFIX)}.{secrets.token_hex(4)}{SAMPLES_SUFFIX}"
            side_file = SideFile(name=name, sha256=hashlib.sha256(data).hexdigest(), rows=len(items))
            replace_file(path.with_name(name), data, self._files)
        try:
            if side_file is not None:
                # Otherwise a power failure could leave the record on the disk without its side file.
                self._files.sync_folder(path.parent)
            sealed = record.model_copy(update={"side_file": side_file}).sealed()
            replace_file(path, record_bytes(sealed), self._files)
        except BaseException:
            # If an interrupt came just after the rename, the new record needs its side file.
            if side_file is not None and _side_file_named_by(path) != side_file.name:
                with suppress(OSError):  # report the first error, not this one
                    self._files.remove(path.with_name(side_file.name))
            raise
        self._files.sync_folder(path.parent)
        if replaced is not None:
            self._files.remove(path.with_name(replaced))
        if complete:
            self._remove_failure(record.cell)
        return path

    def adopt(self, source: Path, record: Record) -> list[Path]:
        """Copies a record of another tree into this one byte for byte, after its side file.

        As with `write`, a reader always finds either the old record of the cell or the copy.

        Args:
            source: the file of the record; its side file is beside it.
            record: the record in that file.

        Returns:
            The paths of the copies: the record, then its side file.

        Raises:
            OSError: a file cannot be read or written.
        """
        failed = record.status == "failed"
        path = self.failed_path_of(record.cell) if failed else self.path_of(record.cell)
        self._make_folders(path.parent)
        copies = [path]
        if record.side_file is not None:
            copies.append(path.with_name(record.side_file.name))
            replace_file(copies[1], source.with_name(record.side_file.name).read_bytes(), self._files)
            self._files.sync_folder(path.parent)
        replace_file(path, source.read_bytes(), self._files)
        self._files.sync_folder(path.parent)
        return copies

    def status_of(self, cell: Cell, code: CodeVersion | Callable[[], CodeVersion]) -> CellState:
        """Returns the state of `cell` in this tree with respect to the current code.

        Args:
            cell: the cell.
            code: the version of the code that would run the cell, or a function that returns it and is
                called only if there is a finished record to compare.
        """
        finished = self._read(cell, self.path_of(cell))
        failed = self._read(cell, self.failed_path_of(cell))
        return state_of(finished, failed, code)

    def records(self) -> Contents:
        """Reads all records in the tree, for a cell with both only the finished one, and unreadable files.

        Side files are not checked; use `check_side_file`. A tree that does not exist is empty.
        """
        return read_whole(self._paths())

    def items(self, stored: StoredRecord) -> pd.DataFrame | None:
        """Reads the per-item data of a record; None if it has none.

        Raises:
            RecordError: the side file is missing, or is not the one that belongs to the record.
        """
        return read_items(stored.path, stored.record)

    def sweep(self) -> list[Path]:
        """Removes files that killed writers left: temporary files and side files that no record names.

        Files that belong, or may belong, to a running process are kept (`suite.storage.leftovers`).

        Returns:
            The removed files.
        """
        contents = read_index(self._paths())
        named = {
            stored.path.with_name(stored.record.side_file.name)
            for entry in contents.records
            for stored in (entry, entry.failure)
            if stored is not None and stored.record.side_file is not None
        }
        # An unreadable record may still name its side file, and someone may want to repair it.
        for unreadable in contents.unreadable:
            stem = unreadable.path.name.removesuffix(RECORD_SUFFIX)
            named.update(unreadable.path.parent.glob(f"{stem}.*{SAMPLES_SUFFIX}"))
        removed = abandoned(self.root, SAMPLES_SUFFIX, named)
        # Without this, a power failure could bring back a removed record after its side file is gone.
        for folder in dict.fromkeys(path.parent for path in removed):
            self._files.sync_folder(folder)
        for path in removed:
            self._files.remove(path)
        return removed

    def _paths(self) -> list[Path]:
        return sorted(self.root.glob(f"*/{RECORD_NAMES}"))

    def _base(self, cell: Cell, suffix: str) -> Path:
        return self.root / cell.folder / f"{cell.stem}{suffix}"

    def _read(self, cell: Cell, path: Path) -> Record | RecordError | None:
        try:
            record = load_record(path)
        except FileNotFoundError:
            return None
        except RecordError as error:
            return error
        if record.cell.digest != cell.digest:
            return RecordError(str(path), f"holds another cell: {record.cell.label}")
        if (record.status == "complete") != (path == self.path_of(cell)):
            return RecordError(str(path), f"holds a {record.status} record under a name of the other kind")
        problem = check_side_file(path, record)
        if problem is None:
            return record
        # Another process may meanwhile have written a new record and removed the old side file.
        if _side_file_named_by(path) != (record.side_file.name if record.side_file else None):
            return self._read(cell, path)
        return RecordError(str(path), problem)

    def _make_folders(self, folder: Path) -> None:
        missing = [place for place in (folder, *folder.parents) if not place.is_dir()]
        for place in reversed(missing):
            self._files.make_folder(place)
        # Existing folders of the tree are synced too: the process that made them may have died before that.
        for place in dict.fromkeys((*missing, folder, self.root)):
            with suppress(PermissionError):  # the folder that contains the tree may be unreadable
                self._files.sync_folder(place.parent)

    def _remove_failure(self, cell: Cell) -> None:
        path = self.failed_path_of(cell)
        side_file = _side_file_named_by(path)
        self._files.remove(path)
        if side_file is not None:
            # Without this, a power failure could bring back the failed record without its side file.
            self._files.sync_folder(path.parent)
            self._files.remove(path.with_name(side_file))


def read_items(path: Path, record: Record) -> pd.DataFrame | None:
    """Reads the per-item data of the record in file `path`; None if it has none.

    Raises:
        RecordError: the side file is missing, or is not the one that belongs to the record.
    """
    import pandas as pd

    problem = check_side_file(path, record)
    if problem is not None:
        raise RecordError(str(path), problem)
    side_file = record.side_file
    return pd.read_parquet(path.with_name(side_file.name)) if side_file is not None else None


def _side_file_named_by(path: Path) -> str | None:
    try:
        side_file = load_record(path).side_file
    except (FileNotFoundError, RecordError):
        return None
    return side_file.name if side_file is not None else None


def _parquet(items: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False)
    return buffer.getvalue()


__all__ = ["SAMPLES_SUFFIX", "ResultStore", "read_items"]
