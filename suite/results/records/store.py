"""The results tree: one JSON file a cell, its per-item data beside it, whole at every moment.

A finished record is `<folder>/<stem>.json`; the failure of a cell is `<folder>/<stem>.failed.json`, so that
a rerun that fails never costs the numbers that were there. Side files carry a token in their names: a rerun
writes a new one and leaves the old one whole until the new record is in place.
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
        root: its folder; made by the first write.
        files: the file operations, replaced in fault tests.
    """

    def __init__(self, root: Path, *, files: FileLayer | None = None) -> None:
        self.root = Path(root)
        self._files = files or FileLayer()

    def path_of(self, cell: Cell) -> Path:
        """Where the finished record of `cell` is or will be."""
        return self._base(cell, RECORD_SUFFIX)

    def failed_path_of(self, cell: Cell) -> Path:
        """Where the record of a failed attempt at `cell` is or will be."""
        return self._base(cell, FAILED_SUFFIX)

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        """Seals and stores a record, its per-item data first.

        What the tree held for the cell stays whole until the new record has its name: at whatever moment
        the process dies, a reader finds the old one or the new one. A failed record never replaces a
        finished one.

        Args:
            record: complete or failed; its `side_file` and `body_digest` are filled in here.
            items: one row an item; None = no side file.

        Returns:
            The path of the record.

        Raises:
            OSError: the disk is full, the folder cannot be written...; nothing half-written is left that can
                be removed.
        """
        complete = record.status == "complete"
        path = self.path_of(record.cell) if complete else self.failed_path_of(record.cell)
        replaced = _side_file_named_by(path)
        self._make_folders(path.parent)
        side_file: SideFile | None = None
        if items is not None:
            data = _parquet(items)
            # The token keeps concurrent writers, and the record being replaced, off each other's files.
            name = f"{path.name.removesuffix(RECORD_SUFFIX)}.{secrets.token_hex(4)}{SAMPLES_SUFFIX}"
            side_file = SideFile(name=name, sha256=hashlib.sha256(data).hexdigest(), rows=len(items))
            replace_file(path.with_name(name), data, self._files)
        try:
            if side_file is not None:
                # Were the record's name to reach the disk ahead of its side file's, a power cut would leave
                # a record that names nothing.
                self._files.sync_folder(path.parent)
            sealed = record.model_copy(update={"side_file": side_file}).sealed()
            replace_file(path, record_bytes(sealed), self._files)
        except BaseException:
            # An interrupt may come just after the rename: then the side file has its record.
            if side_file is not None and _side_file_named_by(path) != side_file.name:
                with suppress(OSError):  # what went wrong first is what to tell
                    self._files.remove(path.with_name(side_file.name))
            raise
        self._files.sync_folder(path.parent)
        if replaced is not None:
            self._files.remove(path.with_name(replaced))
        if complete:
            self._remove_failure(record.cell)
        return path

    def adopt(self, source: Path, record: Record) -> list[Path]:
        """Puts a copy of another tree's record here, to the byte, its side file first.

        As with `write`, a reader finds what the tree held for the cell, or the copy.

        Args:
            source: the record's file, its side file beside it.
            record: what that file holds.

        Returns:
            The copies: the record's, then its side file's.

        Raises:
            OSError: it cannot be read or written.
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
        """What the tree holds for `cell`, seen from the present code.

        Args:
            cell: the cell asked for.
            code: the version of the code that would run it, or a function that finds it, called only if
                there is a finished record to compare.
        """
        finished = self._read(cell, self.path_of(cell))
        failed = self._read(cell, self.failed_path_of(cell))
        return state_of(finished, failed, code)

    def records(self) -> Contents:
        """Every record in the tree, the finished one where a cell has both, and every unreadable file.

        Side files are not looked at: `check_side_file` does. A tree that does not exist is empty.
        """
        return read_whole(self._paths())

    def items(self, stored: StoredRecord) -> pd.DataFrame | None:
        """The per-item data of a record; None if it has none.

        Raises:
            RecordError: the side file is missing or is not the one the record was written with.
        """
        return read_items(stored.path, stored.record)

    def sweep(self) -> list[Path]:
        """Removes what killed writers left: temporary files and side files that no record names.

        Files of a living process, and whatever might be one's, stay (`suite.storage.leftovers`).

        Returns:
            What was removed.
        """
        contents = read_index(self._paths())
        named = {
            stored.path.with_name(stored.record.side_file.name)
            for entry in contents.records
            for stored in (entry, entry.failure)
            if stored is not None and stored.record.side_file is not None
        }
        # A record that cannot be read may still name its side file, and someone may want to mend it.
        for unreadable in contents.unreadable:
            stem = unreadable.path.name.removesuffix(RECORD_SUFFIX)
            named.update(unreadable.path.parent.glob(f"{stem}.*{SAMPLES_SUFFIX}"))
        removed = abandoned(self.root, SAMPLES_SUFFIX, named)
        # A power cut could bring back the record that named a side file, were it gone from memory only.
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
            return RecordError(str(path), f"holds a {record.status} record, which its name denies")
        problem = check_side_file(path, record)
        if problem is None:
            return record
        # Another process may have put a new record in place since, and taken the old side file away.
        if _side_file_named_by(path) != (record.side_file.name if record.side_file else None):
            return self._read(cell, path)
        return RecordError(str(path), problem)

    def _make_folders(self, folder: Path) -> None:
        missing = [place for place in (folder, *folder.parents) if not place.is_dir()]
        for place in reversed(missing):
            self._files.make_folder(place)
        # The tree's own are synced even where they stood: who made them may have died before it came to that.
        for place in dict.fromkeys((*missing, folder, self.root)):
            with suppress(PermissionError):  # the tree may lie in a folder that can be passed and not be read
                self._files.sync_folder(place.parent)

    def _remove_failure(self, cell: Cell) -> None:
        path = self.failed_path_of(cell)
        side_file = _side_file_named_by(path)
        self._files.remove(path)
        if side_file is not None:
            # A power cut could undo this removal and not the next: a failure would be back without its items.
            self._files.sync_folder(path.parent)
            self._files.remove(path.with_name(side_file))


def read_items(path: Path, record: Record) -> pd.DataFrame | None:
    """The per-item data of the record in file `path`; None if it has none.

    Raises:
        RecordError: the side file is missing or is not the one the record was written with.
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
