"""Files and folders that are there whole or not at all, and the few operations they are made of.

A test can cut or fail any one of those.
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
    """The operating system's own; every method raises its `OSError`s as they come."""

    def make_folder(self, folder: Path) -> None:
        """Makes one folder in an existing one; fine if it is there already."""
        folder.mkdir(exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        """Opens a new file for writing, without a buffer; `FileExistsError` if there is one."""
        return path.open("xb", buffering=0)

    def write(self, file: BinaryIO, data: bytes) -> None:
        """Writes all of `data`; a full disk may leave a part of it behind."""
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]

    def sync(self, file: BinaryIO) -> None:
        """Waits until what was written is on the disk."""
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Puts `source` in the place of `target`, in one step."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Removes a file; fine if it is gone already."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Waits until the names in `folder` are on the disk."""
        if os.name == "nt":  # folders cannot be opened there, and renames are journalled
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems cannot do this; their renames are as lasting as they get.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                error.filename = str(folder)  # else the message does not say where
                raise
        finally:
            os.close(descriptor)


def require_folder(folder: Path, option: str = "--out") -> None:
    """Checks that a folder is there or can be made, before anything is computed that shall be put into it.

    Raises:
        InputError: it is a file, lies below one, or cannot be written to; names the option that asked for it.
    """
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:  # a name too long, for one
        raise InputError(f"{option} {folder}: {error.strerror or error}") from error
    if not existing.is_dir():
        what = "is a file" if existing == folder else f"{existing} is a file"
        raise InputError(f"{option} {folder}: {what}; give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {existing} cannot be written to")


def make_folder(folder: Path, option: str = "--out") -> None:
    """Makes a folder, with those above it, right before something is computed that shall be put into it.

    Raises:
        InputError: it cannot be made; names the option that asked for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {folder}: cannot be made ({error.strerror or error})") from error


def replace_file(path: Path, data: bytes, files: FileLayer | None = None) -> None:
    """Gives `path` its new contents in one step; its name lasts once the folder is synced.

    Args:
        path: the file.
        data: what it shall hold.
        files: the file operations, replaced in fault tests.

    Raises:
        OSError: the disk is full...; what `path` held is still there, and nothing beside it that can be
            removed.
    """
    files = files or FileLayer()
    temporary = path.with_name(temporary_name())
    try:
        with files.create(temporary) as file:
            files.write(file, data)
            files.sync(file)
        files.rename(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # of a write or a sync
            error.filename = str(path)
        with suppress(OSError):  # what went wrong first is what to tell
            files.remove(temporary)
        raise


def replace_text(path: Path, text: str) -> None:
    """Gives `path` its new contents, in UTF-8, in one step, and waits until they last."""
    replace_file(path, text.encode())
    FileLayer().sync_folder(path.parent)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent` that goes when the body ends.

    What killed processes left there goes first. Not as `tempfile` makes it, for its owner alone: a team may
    share a cache.
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
    """An empty folder to write into, which takes the place of `folder` when the body is done.

    Whoever else may write `folder` meanwhile has to be kept from it by a lock.

    Raises:
        OSError: it cannot be made or put there.
    """
    with temporary_folder(folder.parent) as staging:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        staging.replace(folder)


def settle_folder(folder: Path) -> None:
    """Gives every file in a folder the permissions that a new one gets there, and waits until all last.

    Libraries that write to a temporary file and rename it leave one that only its owner can read.
    """
    probe = folder / f".{secrets.token_hex(4)}"
    probe.touch()
    usual = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    files = FileLayer()
    for path in folder.rglob("*"):
        if path.is_dir():
            files.sync_folder(path)
        elif path.is_file():
            path.chmod(usual)
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
    "settle_folder",
    "temporary_folder",
]
