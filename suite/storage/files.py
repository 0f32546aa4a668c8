"""Atomic writes: a file or folder is either complete or absent. Built on a few file operations.

Tests can make any one of these operations fail or stop halfway.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from methods.errors import InputError
from suite.storage.leftovers import left_behind, temporary_name


class FileLayer:
    """The file operations of the operating system; every method passes on the `OSError`s it meets."""

    def make_folder(self, folder: Path) -> None:
        """Makes a folder inside an existing one; does nothing if it already exists."""
        folder.mkdir(exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        """Opens a new file for unbuffered writing; raises `FileExistsError` if it already exists."""
        return path.open("xb", buffering=0)

    def write(self, file: BinaryIO, data: bytes) -> None:
        """Writes all of `data`; if the disk is full, a part of it may remain in the file."""
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]

    def sync(self, file: BinaryIO) -> None:
        """Waits until the written data is on the disk."""
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Renames `source` to `target` atomically and replaces an existing `target`."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Removes a file; does nothing if it does not exist."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Waits until the directory entries of `folder` are on the disk."""
        if os.name == "nt":  # Windows cannot open folders, and it journals renames
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems cannot sync a folder; nothing more can be done there.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                error.filename = str(folder)  # otherwise the message lacks the path
                raise
        finally:
            os.close(descriptor)


def require_folder(folder: Path, option: str = "--out") -> None:
    """Checks that an output folder exists or can be made. Call it before the computation starts.

    Raises:
        InputError: the folder or one above it is a file, or is not writable; the message names `option`.
    """
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:  # for example a name that is too long
        raise InputError(f"{option} {folder}: {error.strerror or error}") from error
    if not existing.is_dir():
        what = "is a file" if existing == folder else f"{existing} is a file"
        raise InputError(f"{option} {folder}: {what}; give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {existing} cannot be written to")


def make_folder(folder: Path, option: str = "--out") -> None:
    """Makes an output folder and its parents. Call it right before the computation starts.

    Raises:
        InputError: the folder cannot be made; the message names `option`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {folder}: cannot be made ({error.strerror or error})") from error


def replace_file(path: Path, data: bytes, files: FileLayer | None = None) -> None:
    """Replaces the contents of a file atomically. The rename is durable only once the folder is synced.

    Args:
        path: the file.
        data: the new contents.
        files: the file operations; fault tests pass their own.

    Raises:
        OSError: the write failed, for example because the disk is full; `path` keeps its old contents, and
            the temporary file is removed if possible.
    """
    files = files or FileLayer()
    temporary = path.with_name(temporary_name())
    try:
        with files.create(temporary) as file:
            files.write(file, data)
            files.sync(file)
        files.rename(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # errors of write and sync lack a path
            error.filename = str(path)
        with suppress(OSError):  # report the first error, not this one
            files.remove(temporary)
        raise


def replace_text(path: Path, text: str) -> None:
    """Replaces the contents of a file atomically with UTF-8 text, and waits until it is on the disk."""
    replace_file(path, text.encode())
    FileLayer().sync_folder(path.parent)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Makes an empty folder in `parent` that is removed when the body ends.

    Folders left there by killed processes are removed first. `tempfile` is not used because only the owner
    can read its folders, and a team may share a cache.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in left_behind(parent):
        shutil.rmtree(left, ignore_errors=True)
    folder = parent / temporary_name()
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Makes an empty folder to write into, which replaces `folder` when the body succeeds.

    The caller must hold a lock if other processes may write `folder` at the same time.

    Raises:
        OSError: the new folder cannot be made, or cannot replace `folder`.
    """
    with temporary_folder(folder.parent) as staging:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        staging.replace(folder)


def set_permissions_and_sync(folder: Path) -> None:
    """Gives every file in a folder the default permissions, and waits until all files are on the disk.

    Libraries that write to a temporary file and rename it leave a file that only its owner can read.
    """
    probe = folder / f".{secrets.token_hex(4)}"
    probe.touch()
    default_mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    files = FileLayer()
    for path in folder.rglob("*"):
        if path.is_dir():
            files.sync_folder(path)
        elif path.is_file():
            path.chmod(default_mode)
            with path.open("rb+") as file:
                files.sync(file)
    files.sync_folder(folder)


__all__ = [
    "FileLayer",
    "make_folder",
    "replace_file",
    "replace_text",
    "replaced_folder",
    "require_folder",
    "set_permissions_and_sync",
    "temporary_folder",
]
