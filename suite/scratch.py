"""Where large temporary files go: a disk, since the host's memory is what they are there to spare."""

from __future__ import annotations

import os
import shutil
import uuid
import weakref
from pathlib import Path

from filelock import FileLock, Timeout

from suite.cache import cache_root

VARIABLE = "PRUNEBENCH_SCRATCH"


def scratch_root() -> Path:
    """`PRUNEBENCH_SCRATCH`, else a folder of the user's own in `TMPDIR`, else `scratch` in the cache.

    Never a `/tmp` that nobody named: it may lie in the host's memory.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("TMPDIR"):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(shared).expanduser().absolute() / f"prunebench-{user}"
    return cache_root() / "scratch"


class ScratchFolder:
    """A new folder below `scratch_root()`, gone once it is closed, forgotten, or the process ends.

    It is locked while it is in use, so that the next one to be made can take away what a killed process left.

    Args:
        purpose: what it holds, the beginning of its name.

    Attributes:
        path: the folder.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, purpose: str) -> None:
        root = scratch_root()
        root.mkdir(parents=True, exist_ok=True)
        name = f"{purpose}-{uuid.uuid4().hex[:12]}"
        self.path = root / name
        # One thread may make the folder and another give it up.
        lock = FileLock(root / f"{name}.lock", thread_local=False)
        with FileLock(root / "sweep.lock"):
            _sweep(root)
            lock.acquire()
            self.path.mkdir()
        self._finalizer = weakref.finalize(self, _remove, self.path, lock)

    def close(self) -> None:
        """Removes it."""
        self._finalizer()


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _sweep(root: Path) -> None:
    """Removes the folders whose owner holds no lock on them any more; nobody else is sweeping."""
    for file in root.glob("*-*.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # in use, or somebody else's
            continue
        _remove(file.with_suffix(""), lock)


__all__ = ["VARIABLE", "ScratchFolder", "scratch_root"]
