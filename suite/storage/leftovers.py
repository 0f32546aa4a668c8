"""Finds files that killed writers left in a results tree and that are safe to remove."""

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
"""Age in seconds from which a file counts as abandoned; no write takes that long."""

_NAME = re.compile(rf"{re.escape(PREFIX)}(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-[0-9a-f]{{8}}")


def temporary_name() -> str:
    """Returns a unique file name that identifies its writer: `.tmp-<host>-<pid>-<token>`."""
    return f"{PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def abandoned(root: Path, side_files: str, needed: Collection[Path]) -> list[Path]:
    """Returns the files below `root` that no writer will use again.

    A temporary file of this host is abandoned once its process has ended. Temporary files of other hosts, and
    side files that no record names, count as abandoned once they are a day old: before that, their writer may
    still be running, or the record may be about to be written.

    Args:
        root: the results tree.
        side_files: suffix of the side files' names.
        needed: side files to keep.
    """
    found = [path for path in root.glob(f"*/{PREFIX}*") if owner_is_gone(path)]
    found += [path for path in root.glob(f"*/*{side_files}") if path not in needed and _is_old(path)]
    return sorted(found)


def left_behind(folder: Path) -> list[Path]:
    """Returns the files and folders in `folder` that have a `temporary_name` and are abandoned."""
    return [path for path in folder.glob(f"{PREFIX}*") if owner_is_gone(path)]


def owner_is_gone(path: Path) -> bool:
    """Whether the writer of a file or folder with a `temporary_name` has ended, or the file is a day old."""
    name = _NAME.fullmatch(path.name)
    if name is not None and name["host"] == _host():
        import psutil

        return not psutil.pid_exists(int(name["pid"]))
    return _is_old(path)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_AFTER_S
    except FileNotFoundError:  # its writer removed or renamed it meanwhile
        return False


@lru_cache(maxsize=1)
def _host() -> str:
    # Two containers may share the host name and the tree; their PID namespaces tell them apart.
    namespace = Path("/proc/self/ns/pid")
    processes = str(namespace.readlink()) if namespace.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()}\0{processes}".encode()).hexdigest()[:8]


__all__ = ["ABANDONED_AFTER_S", "PREFIX", "abandoned", "left_behind", "owner_is_gone", "temporary_name"]
