"""Where large temporary files go: a disk, since the host's memory is what they are there to spare."""

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
    """`PRUNEBENCH_SCRATCH`, else a folder of the user's own in `TMPDIR`, else `scratch` in the cache.

    Never a `/tmp` that nobody named: it may lie in the host's memory.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("TMPDIR"):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(shared).expanduser().absolute() / f"prunebench-{user}"
    return cache_root() / "scratch"


def free_scratch() -> int | None:
    """Bytes that are free there, or will be once what killed processes left is gone; None if nobody knows."""
    root = scratch_root()
    try:
        free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.is_dir())).free
        files = [file for left in left_behind(root) for file in left.rglob("*") if file.is_file()]
        return free + sum(file.stat().st_size for file in files)
    except OSError:
        return None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder below `scratch_root` that goes when the body ends.

    What killed processes of this machine left there goes first.
    """
    with temporary_folder(scratch_root()) as folder:
        yield folder


__all__ = ["VARIABLE", "free_scratch", "scratch_folder", "scratch_root"]
