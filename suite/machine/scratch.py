"""The folder for large temporary files. It must be on a disk, because the files are there to save memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.machine.cache import cache_root
from suite.storage.files import temporary_folder
from suite.storage.leftovers import left_behind

VARIABLE = "PRUNEBENCH_SCRATCH"


def scratch_root() -> Path:
    """Returns `PRUNEBENCH_SCRATCH`, else a folder per user in `TMPDIR`, else `scratch` in the cache folder.

    Never uses `/tmp` unless a variable names it, because it may be kept in memory.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    if shared := os.environ.get("TMPDIR"):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(shared).expanduser().absolute() / f"prunebench-{user}"
    return cache_root() / "scratch"


def free_scratch() -> int | None:
    """Returns the free bytes of the scratch disk, counting leftovers of killed processes; None if unknown."""
    root = scratch_root()
    try:
        free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.is_dir())).free
        files = [file for left in left_behind(root) for file in left.rglob("*") if file.is_file()]
        return free + sum(file.stat().st_size for file in files)
    except OSError:
        return None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Makes an empty folder below `scratch_root` that is removed when the body ends.

    Folders left there by killed processes of this machine are removed first.
    """
    with temporary_folder(scratch_root()) as folder:
        yield folder


__all__ = ["VARIABLE", "free_scratch", "scratch_folder", "scratch_root"]
