"""Creates the folder of a checkpoint, which appears only once it is complete, and has only one writer."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from methods.errors import InputError, PruningError
from suite.storage.files import require_folder, set_permissions_and_sync

_LOCK = ".writing"


def require_empty(out: Path) -> None:
    """Raises `InputError` unless `out` is an empty folder or can be created."""
    require_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder is not empty; give a new one")


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a folder to write into, which is renamed to `out` after the body, or removed if it fails.

    The folder is `.<name>.unfinished` beside `out`, and is locked while the body runs. Files that a killed
    process left there are removed by the next one that writes to `out`.

    Raises:
        InputError: `out` cannot be created, is not empty, or is being written by another process.
        PruningError: another process filled `out` meanwhile; the message names the checkpoint's new location.
    """
    out = out.resolve()
    require_empty(out)
    staging = out.with_name(f".{out.name}.unfinished")
    busy = InputError(f"--out {out}: another prune is writing there; give another folder, or wait for it")
    made = [place for place in out.parents if not place.exists()]
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be created ({error.strerror or error})") from error
    lock = FileLock(staging / _LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError) as error:  # another process is writing, or has just finished
        raise busy from error
    try:
        if not (staging / _LOCK).exists():  # the previous owner of the lock has renamed the folder
            raise busy
        try:
            _clear(staging)
            require_empty(out)  # another process may have filled it by now
            yield staging
            set_permissions_and_sync(staging)
            placed = _place(staging, out)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # remove the new parent folders, unless they contain something else
                for place in made:
                    place.rmdir()
            raise
        (placed / _LOCK).unlink(missing_ok=True)
        if placed != out:
            raise PruningError(
                f"--out {out} was filled by another process: the finished checkpoint is in {placed}"
            )
    finally:
        lock.release()


def _clear(staging: Path) -> None:
    """Removes what a killed process left, except for the lock."""
    for path in staging.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def _place(staging: Path, out: Path) -> Path:
    """Renames the finished folder to `out`, or to a similar name if `out` is taken, to lose no work."""
    try:
        return staging.replace(out)  # replaces an empty folder
    except OSError:
        if not out.exists():
            raise
        return staging.replace(out.with_name(f"{out.name}-{secrets.token_hex(4)}"))


__all__ = ["atomic_folder", "require_empty"]
