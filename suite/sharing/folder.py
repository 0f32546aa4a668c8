"""A folder of what several cells need: each entry is there whole or not at all, and made by one at a time."""

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
"""Of a disk that stays free whatever is kept."""
GIVEN_UP_S = 7 * 24 * 3600


class SharedFolder:
    """Keeps entries by name for all processes of one machine.

    An entry is a folder. What a killed process left of one is never taken for it, and what cannot be kept
    (a full disk) is computed again.

    Args:
        root: where; made by the first entry.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self, name: str) -> Iterator[Path]:
        """Nobody else makes the entry meanwhile; gives its folder, which may not exist.

        A process that dies lets go of it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        os.utime(self.root)
        with FileLock(self.root / f"{name}.lock"):
            yield self.root / name

    def put(self, name: str, write: Callable[[Path], None], n_bytes: int) -> bool:
        """Makes or replaces an entry; the caller holds its lock.

        Args:
            name: of the entry.
            write: fills the empty folder it is given.
            n_bytes: how much it will write, about.

        Returns:
            Whether it was kept. The disk may be too full, now or halfway.
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
        """Removes folders beside this one that nobody has asked for a week: their runs were given up."""
        beside = self.root.parent.glob(f"{self.root.name.partition('-')[0]}-*")
        for folder in beside:
            try:
                is_old = time.time() - folder.stat().st_mtime > GIVEN_UP_S
            except OSError:  # its owner was quicker
                continue
            if is_old and folder != self.root:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Removes all of it."""
        shutil.rmtree(self.root, ignore_errors=True)


__all__ = ["SPARE_SHARE", "SharedFolder"]
