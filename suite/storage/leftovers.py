"""What killed writers leave in a results tree, and when it is safe to take it away."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

PREFIX = ".tmp-"
ABANDONED_AFTER_S = 24 * 3600
"""No write takes as long; older files belong to nobody."""

_NAME = re.compile(rf"{re.escape(PREFIX)}(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-[0-9a-f]{{8}}")


def temporary_name() -> str:
    """A file name no other writer uses, which says whose it is: `.tmp-<host>-<pid>-<token>`."""
    return f"{PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def abandoned(root: Path, side_files: str, needed: Collection[Path]) -> list[Path]:
    """The files below `root` that no writer will come back to.

    A temporary file of this host is abandoned once its process is gone; any other, and a side file that no
    record names, once it is a day old: it may be another host's, or its record may be about to be written.

    Args:
        root: the results tree.
        side_files: ending of the side files' names.
        needed: side files that stay.
    """
    found = [path for path in root.glob(f"*/{PREFIX}*") if owner_is_gone(path)]
    found += [path for path in root.glob(f"*/*{side_files}") if path not in needed and _is_old(path)]
    return sorted(found)


def left_behind(folder: Path) -> list[Path]:
    """What in `folder` has a `temporary_name` and belongs to nobody any more."""
    return [path for path in folder.glob(f"{PREFIX}*") if owner_is_gone(path)]


def owner_is_gone(path: Path) -> bool:
    """Whether what has a `temporary_name` belongs to nobody any more."""
    name = _NAME.fullmatch(path.name)
    if name is not None and name["host"] == _host():
        import psutil

        return not psutil.pid_exists(int(name["pid"]))
    return _is_old(path)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_AFTER_S
    except FileNotFoundError:  # its writer was quicker
        return False


@lru_cache(maxsize=1)
def _host() -> str:
    # Two containers may share a host's name and the tree, but then not the numbers of their processes.
    namespace = Path("/proc/self/ns/pid")
    processes = str(namespace.readlink()) if namespace.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()}\0{processes}".encode()).hexdigest()[:8]


__all__ = ["ABANDONED_AFTER_S", "PREFIX", "abandoned", "left_behind", "owner_is_gone", "temporary_name"]
