"""What a kill or a power cut may leave of the store's writes, simulated step by step.

A `Disk` does every file operation for real in a folder and remembers what of it has reached the platters. A
`Layer` stops its process before every operation and at one byte of every write. There a cut is simulated on a
copy: a kill leaves everything done so far; a power cut keeps what was synced, and of the rest whatever POSIX
allows: a name touched since its folder was synced has any of the values it had since, independently of the
others; a file may end at any byte that was not synced, or go on in zeros.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from suite.storage.files import FileLayer
from tests.suite.results.faults import Killed


@dataclass
class File:
    """A file's bytes, and how many of them are on the disk."""

    data: bytes = b""
    synced: int = 0


@dataclass
class Folder:
    """A folder's names, and what each that changed since the last sync may be found as."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    possible: dict[str, list[File | Folder | None]] = field(default_factory=dict)

    def set(self, name: str, node: File | Folder | None) -> None:
        """Gives `name` to `node`, or to nothing."""
        self.possible.setdefault(name, [self.names.get(name)]).append(node)
        self.names.pop(name, None)
        if node is not None:
            self.names[name] = node


class Disk:
    """The folder `base` as processes see it, and what of it would outlast a power cut."""

    def __init__(self, base: Path, top: Folder | None = None) -> None:
        self.base = base
        self.top = top or Folder()
        base.mkdir()
        _write_out(self.top, base)

    def folder(self, path: Path) -> Folder:
        """The folder at `path`."""
        found = self.top
        for name in path.relative_to(self.base).parts:
            inner = found.names[name]
            assert isinstance(inner, Folder)
            found = inner
        return found

    def file(self, path: Path) -> File:
        """The file at `path`."""
        found = self.folder(path.parent).names[path.name]
        assert isinstance(found, File)
        return found

    def after_cut(self, base: Path, chance: random.Random, *, power: bool) -> Disk:
        """A disk in the new folder `base`, as it might be found after a cut now."""
        return Disk(base, _survivors(self.top, chance, power, {}))


def _survivors(folder: Folder, chance: random.Random, power: bool, files: dict[int, File]) -> Folder:
    names: dict[str, File | Folder | None] = dict(folder.names)
    if power:
        all_lost = chance.random() < 0.2
        for name, values in folder.possible.items():
            names[name] = values[0] if all_lost else chance.choice(values)
    found = Folder()
    for name, node in names.items():
        if isinstance(node, Folder):
            found.names[name] = _survivors(node, chance, power, files)
        elif isinstance(node, File):
            if id(node) not in files:  # under two names it is one file
                data = _surviving_data(node, chance) if power else node.data
                files[id(node)] = File(data, len(data))
            found.names[name] = files[id(node)]
    return found


def _surviving_data(file: File, chance: random.Random) -> bytes:
    if file.synced == len(file.data):
        return file.data
    end = chance.choice([file.synced, len(file.data), chance.randint(file.synced, len(file.data))])
    zeros = chance.choice([0, len(file.data) - end])
    return file.data[:end] + bytes(zeros)


def _write_out(folder: Folder, path: Path) -> None:
    for name, node in folder.names.items():
        if isinstance(node, Folder):
            (path / name).mkdir()
            _write_out(node, path / name)
        else:
            (path / name).write_bytes(node.data)


class Layer(FileLayer):
    """One process's way to a disk, which pauses before every operation.

    Args:
        disk: the disk.
        pause: called with the operation's name before it is done; raises `Killed` where it is not to be.
        chance: draws the byte at which a write pauses.
        without: operations that are left out, to see what they are for.
    """

    def __init__(
        self, disk: Disk, pause: Callable[[str], None], chance: random.Random, without: frozenset[str]
    ) -> None:
        self.made: set[Path] = set()
        self._disk = disk
        self._pause = pause
        self._chance = chance
        self._without = without
        self._opened: dict[str, File] = {}  # an open file outlives its name

    def make_folder(self, folder: Path) -> None:
        self._pause("make a folder")
        if not folder.is_dir():
            folder.mkdir()
            self._disk.folder(folder.parent).set(folder.name, Folder())

    def create(self, path: Path) -> BinaryIO:
        self._pause("create")
        file = path.open("xb", buffering=0)
        self._opened[str(file.name)] = File()
        self._disk.folder(path.parent).set(path.name, self._opened[str(file.name)])
        self.made.add(path)
        return file

    def write(self, file: BinaryIO, data: bytes) -> None:
        node = self._opened[str(file.name)]
        at = self._chance.randint(0, len(data))
        for name, part in (("write", data[:at]), ("inside a write", data[at:])):
            self._pause(name)
            super().write(file, part)
            node.data += part

    def sync(self, file: BinaryIO) -> None:
        if "sync" not in self._without:
            self._pause("sync")
            node = self._opened[str(file.name)]
            node.synced = len(node.data)

    def rename(self, source: Path, target: Path) -> None:
        self._pause("rename")
        source.replace(target)
        node = self._disk.file(source)
        self._disk.folder(target.parent).set(target.name, node)
        self._disk.folder(source.parent).set(source.name, None)
        self.made = self.made - {source} | {target}

    def remove(self, path: Path) -> None:
        self._pause("remove")
        if path.exists():
            path.unlink()
            self._disk.folder(path.parent).set(path.name, None)

    def sync_folder(self, folder: Path) -> None:
        if "sync a folder" not in self._without:
            self._pause("sync a folder")
            self._disk.folder(folder).possible.clear()


class Process:
    """Something that uses the disk one operation at a time, when it is told to.

    Args:
        number: its process number.
        files: makes its file layer out of what pauses it.
        work: what it does with the layer.
    """

    def __init__(
        self, number: int, files: Callable[[Callable[[str], None]], Layer], work: Callable[[Layer], None]
    ) -> None:
        self.number = number
        self.next_step: str | None = "start"
        """What it is about to do; None once it has ended."""
        self.was_killed = False
        self.error: Exception | None = None
        self.files = files(self._pause)
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    @property
    def is_alive(self) -> bool:
        return self.next_step is not None

    def step(self) -> None:
        """Lets it do what it is about to do, up to the next operation or its end."""
        if self.next_step == "start":
            self._thread.start()
        else:
            self._go.release()
        self._paused.acquire()

    def kill(self) -> None:
        """Ends it where it is."""
        self.was_killed = True
        if self.next_step == "start":
            self.next_step = None
        elif self.is_alive:
            self.step()

    def _run(self, work: Callable[[Layer], None]) -> None:
        try:
            work(self.files)
        except Killed:
            pass
        except Exception as error:
            self.error = error
        self.next_step = None
        self._paused.release()

    def _pause(self, step: str) -> None:
        if not self.was_killed:
            self.next_step = step
            self._paused.release()
            self._go.acquire()
        if self.was_killed:
            raise Killed


def age(path: Path, seconds: float) -> None:
    """Makes a file look as if it was last written that long ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
