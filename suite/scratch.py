"""Where large temporary files go: a disk, since the host's memory is what they are there to spare."""

from __future__ import annotations

import os
from pathlib import Path

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


__all__ = ["VARIABLE", "scratch_root"]
