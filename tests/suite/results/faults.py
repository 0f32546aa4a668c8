"""A file layer that dies or fails at a chosen step."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

from suite.storage.files import FileLayer


class Killed(BaseException):
    """Stands for SIGKILL: once it was raised, the process touches no file any more."""


class FaultyLayer(FileLayer):
    """Does as told up to one step, and there is killed or fails.

    Args:
        at: the step, from 0; every operation is one, a write is two (half of the data, the rest). None =
            only count.
        full_disk: fail with ENOSPC at that step and go on working, instead of dying there.
    """

    def __init__(self, at: int | None = None, *, full_disk: bool = False) -> None:
        self.steps: list[str] = []
        self._at = at
        self._full_disk = full_disk
        self._dead = False

    def _step(self, name: str) -> None:
        if self._dead:
            raise Killed
        self.steps.append(name)
        if len(self.steps) - 1 == self._at:
            if self._full_disk:
                raise OSError(errno.ENOSPC, "No space left on device")
            self._dead = True
            raise Killed

    def make_folder(self, folder: Path) -> None:
        self._step("make_folder")
        super().make_folder(folder)

    def create(self, path: Path) -> BinaryIO:
        self._step("create")
        return super().create(path)

    def write(self, file: BinaryIO, data: bytes) -> None:
        half = len(data) // 2
        self._step("write the first half")
        super().write(file, data[:half])
        self._step("write the second half")
        super().write(file, data[half:])

    def sync(self, file: BinaryIO) -> None:
        self._step("sync")
        super().sync(file)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove")
        super().remove(path)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder")
        super().sync_folder(folder)
