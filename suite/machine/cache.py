"""The user's cache folder. Its subfolders are built once, and each is either complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from suite.storage.files import FileLayer, replaced_folder, set_permissions_and_sync

MANIFEST = "manifest.json"

_verified: set[Path] = set()
"""Folders whose files this process has already hashed, so that the model's 540 MB are read once per run."""


class AssetError(RuntimeError):
    """A file that the program needs could not be fetched, checked or cached; the message is one line."""


def cache_root() -> Path:
    """Returns `PRUNEBENCH_CACHE`, else `prunebench` in `XDG_CACHE_HOME` or the platform's cache folder."""
    if chosen := os.environ.get("PRUNEBENCH_CACHE"):
        return Path(chosen).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser().absolute() / "prunebench"
    return user_cache_path("prunebench", appauthor=False)


def built_folder(name: str, version: str, build: Callable[[Path], None]) -> Path:
    """Returns the cached folder `<name>-<version>`; builds it first if it is missing or damaged.

    A lock keeps two processes from building it at the same time. A killed process leaves no incomplete
    folder under this name: the files are written to a temporary folder, listed with their SHA-256 in a
    manifest and flushed, and the folder is renamed last. Every process compares the files with the manifest
    at its first call.

    Args:
        name: a plain file name for the content.
        version: identifies the content; each version has its own folder.
        build: writes the content into the empty folder that it receives.

    Raises:
        AssetError: the cache cannot be written; errors of `build` other than `OSError` pass through.
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
                    set_permissions_and_sync(staging)
                FileLayer().sync_folder(root)
    except OSError as error:
        raise AssetError(
            f"the cache folder {root} cannot be written ({error.strerror or error}): "
            "make room, or set PRUNEBENCH_CACHE to another folder"
        ) from error
    _verified.add(folder)
    return folder


def cached_folder(name: str, version: str) -> Path:
    """Returns the path at which `built_folder` puts a folder, whether it exists or not."""
    return cache_root() / f"{name}-{version}"


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"sha256": file_sha256(path), "size": path.stat().st_size} for path in folder.iterdir()
    }
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1, sort_keys=True), encoding="utf-8")


def _is_intact(folder: Path) -> bool:
    """Whether all files have their size and, at the first call of this process, their SHA-256."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        sizes_agree = all((folder / name).stat().st_size == file["size"] for name, file in files.items())
        intact = sizes_agree and (
            folder in _verified
            or all(file_sha256(folder / name) == file["sha256"] for name, file in files.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A missing or unreadable manifest counts as damage: the folder is built again.
        intact = False
    if intact:
        _verified.add(folder)
    else:
        _verified.discard(folder)
    return intact


__all__ = ["MANIFEST", "AssetError", "built_folder", "cache_root", "cached_folder", "file_sha256"]
