"""The folder of a site: pages are replaced one by one, and files of others are never touched."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from suite.storage.files import FileLayer, replace_file, replace_text

MANIFEST = ".prunebench-site.json"
"""Lists every file of the site, so that a later build knows which files it may remove."""


class SiteError(ValueError):
    """The site cannot be built. The message is a single line."""


class SiteFolder:
    """Writes a site into a folder that is empty or contains an earlier build of a site.

    Args:
        root: the folder; it is created if it is missing.

    Raises:
        SiteError: the folder contains other files, or is not a folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._before = self._read_manifest()
        self._written: set[str] = set()
        self._changed: set[Path] = set()
        root.mkdir(parents=True, exist_ok=True)
        # If this build is interrupted, the next one still recognizes the folder as a site.
        self._write_manifest(self._before)

    def fill(self, pages: Iterable[tuple[str, str]]) -> tuple[int, int]:
        """Writes pages as they are generated, then removes those that only an earlier build had.

        Args:
            pages: pairs of path below the root and contents, each path once.

        Returns:
            The number of files of the site, and the number of removed files.

        Raises:
            SiteError: a path leads out of the folder.
        """
        try:
            for path, text in pages:
                self._write(path, text)
        except BaseException:
            self._write_manifest(self._before | self._written)
            raise
        for folder in self._changed:
            FileLayer().sync_folder(folder)
        gone = self._before - self._written
        for path in sorted(gone):
            self._remove(path)
        self._write_manifest(self._written)
        return len(self._written), len(gone)

    def _read_manifest(self) -> set[str]:
        if self.root.exists() and not self.root.is_dir():
            raise SiteError(f"{self.root}: is a file; a site needs a folder")
        try:
            found = json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))
            files = found["files"]
            if not (isinstance(files, list) and all(isinstance(file, str) for file in files)):
                raise ValueError("files is not a list of names")
        except FileNotFoundError:
            if self.root.is_dir() and any(self.root.iterdir()):
                message = "contains other files and no site; give an empty folder, or a new one"
                raise SiteError(f"{self.root}: {message}") from None
            return set()
        except (ValueError, KeyError, TypeError) as error:
            raise SiteError(f"{self.root / MANIFEST}: is damaged ({error}); give an empty folder") from None
        return set(files)

    def _write_manifest(self, files: set[str]) -> None:
        replace_text(self.root / MANIFEST, json.dumps({"files": sorted(files)}, indent=1) + "\n")

    def _write(self, path: str, text: str) -> None:
        target = self._inside(path)
        if target is None:
            raise SiteError(f"{self.root / path}: leads out of the site's folder")
        if path in self._written:
            raise SiteError(f"{self.root / path}: two pages have this name")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._written.add(path)
        if not _holds(target, text):
            replace_file(target, text.encode())
            self._changed.add(target.parent)

    def _remove(self, path: str) -> None:
        # The manifest may have been edited: never remove anything outside the folder.
        target = self._inside(path)
        if target is None or not (target.is_file() or target.is_symlink()):
            return
        target.unlink()
        if target.parent != self.root and not any(target.parent.iterdir()):
            target.parent.rmdir()

    def _inside(self, path: str) -> Path | None:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            return None
        target = self.root / path
        root = self.root.resolve()
        # A folder of the site may have been replaced by a link to another place.
        return target if target.parent.resolve() in (root, *(root / p for p in parts.parents)) else None


def _holds(path: Path, text: str) -> bool:
    """Whether the file has these contents: unchanged files keep their time, for caches and copies."""
    try:
        return not path.is_symlink() and path.read_bytes() == text.encode()
    except OSError:
        return False
