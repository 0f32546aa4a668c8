"""A folder of results that several cells need; entries are atomic, and only one process makes each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from suite.storage.files import replaced_folder

SPARE_SHARE = 0.1
"""Fraction of a disk that is left free."""
ABANDONED_S = 7 * 24 * 3600
"""Age in seconds at which the folder of another run counts as abandoned."""


class SharedFolder:
    """Stores entries by name for all processes of one machine.

    An entry is a folder. An entry that a killed process left unfinished is never used, and one that cannot be
    stored (e.g. on a full disk) is computed again.

    Args:
        root: the folder; created with the first entry.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self, name: str) -> Iterator[Path]:
        """Locks an entry so that no other process makes it; yields its folder, which may not exist.

        The lock is released if the process dies.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        os.utime(self.root)
        with FileLock(self.root / f"{name}.lock"):
            yield self.root / name

    def put(self, name: str, write: Callable[[Path], None], n_bytes: int) -> bool:
        """Creates or replaces an entry; the caller holds its lock.

        Args:
            name: name of the entry.
            write: writes the entry's files into the empty folder that it is called with.
            n_bytes: approximate size of the entry in bytes.

        Returns:
            Whether the entry was stored; False if the disk is too full or fills up while writing.
        """
        try:
            disk = shutil.disk_usage(self.root)
            if disk.free - n_bytes < SPARE_SHARE * disk.total:
                return False
            with replaced_folder(self.root / name) as staging:
                write(staging)
        except OSError:
            return False
        return True

    def sweep(self) -> None:
        """Removes sibling folders that no run has used for a week."""
        beside = self.root.parent.glob(f"{self.root.name.partition('-')[0]}-*")
        for folder in beside:
            try:
                is_old = time.time() - folder.stat().st_mtime > ABANDONED_S
            except OSError:  # its owner has just removed it
                continue
            if is_old and folder != self.root:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Removes the folder and all entries."""
        shutil.rmtree(self.root, ignore_errors=True)


__all__ = ["SPARE_SHARE", "SharedFolder"]
