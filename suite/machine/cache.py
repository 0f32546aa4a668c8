"""The user's cache folder: subfolders that are built once, and are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from suite.storage.files import FileLayer, replaced_folder, settle_folder

MANIFEST = "manifest.json"

_verified: set[Path] = set()
"""Folders whose files this process has hashed already: the model's 540 MB are read once a run."""


class AssetError(RuntimeError):
    """Something the program needs could not be fetched, checked or cached; the message is one line."""


def cache_root() -> Path:
    """`PRUNEBENCH_CACHE`, else `prunebench` in `XDG_CACHE_HOME`, else in the platform's cache folder."""
    if own := os.environ.get("PRUNEBENCH_CACHE"):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser().absolute() / "prunebench"
    return user_cache_path("prunebench", appauthor=False)


def built_folder(name: str, version: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `<name>-<version>`, built first if it is missing or damaged.

    Two processes never build it at once, and one that is killed leaves nothing that is taken for the
    folder: files are written under another name, flushed, listed with their SHA-256 in a manifest, and the
    folder is renamed last. Every process compares the files with the manifest when it first asks.

    Args:
        name: what it holds, a plain file name.
        version: what its content depends on; another version is another folder.
        build: writes the content into the empty folder it is given.

    Raises:
        AssetError: the cache cannot be written, or what `build` raised.
    """
    root = cache_root()
    folder = cached_folder(name, version)
    if _is_intact(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not _is_intact(folder):
                with replaced_folder(folder) as staging:
                    build(staging)
                    _write_manifest(staging)
                    settle_folder(staging)
                FileLayer().sync_folder(root)
    except OSError as error:
        raise AssetError(
            f"the cache folder {root} cannot be written ({error.strerror or error}): "
            "make room, or set PRUNEBENCH_CACHE to another folder"
        ) from error
    _verified.add(folder)
    return folder


def cached_folder(name: str, version: str) -> Path:
    """Where `built_folder` puts a folder; it may not be there yet."""
    return cache_root() / f"{name}-{version}"


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"sha256": file_sha256(path), "size": path.stat().st_size} for path in folder.iterdir()
    }
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1, sort_keys=True), encoding="utf-8")


def _is_intact(folder: Path) -> bool:
    """Whether every file is there at its size and, when this process first asks, with its SHA-256."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        sizes_agree = all((folder / name).stat().st_size == file["size"] for name, file in files.items())
        intact = sizes_agree and (
            folder in _verified
            or all(file_sha256(folder / name) == file["sha256"] for name, file in files.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A manifest that is missing or does not parse is damage like any other: the folder is built anew.
        intact = False
    if intact:
        _verified.add(folder)
    else:
        _verified.discard(folder)
    return intact


__all__ = ["MANIFEST", "AssetError", "built_folder", "cache_root", "cached_folder", "file_sha256"]
