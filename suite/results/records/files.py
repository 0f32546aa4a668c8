"""The few file operations the store is made of, so that a test can cut or fail any one of them."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from methods.errors import InputError
from suite.results.records.leftovers import temporary_name


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


def replace_file(path: Path, data: bytes, files: FileLayer) -> None:
    """Gives `path` its new contents in one step; its name lasts once the folder is synced.

    Raises:
        OSError: the disk is full...; what `path` held is still there, and nothing beside it that can be
            removed.
    """
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
    files = FileLayer()
    replace_file(path, text.encode(), files)
    files.sync_folder(path.parent)


__all__ = ["FileLayer", "make_folder", "replace_file", "replace_text", "require_folder"]
