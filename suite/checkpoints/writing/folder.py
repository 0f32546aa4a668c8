"""The folder of a checkpoint: new, written by one process, and there whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from methods.errors import InputError, PruningError
from suite.storage.files import require_folder, settle_folder

_LOCK = ".writing"


def require_empty(out: Path) -> None:
    """Raises `InputError` unless `out` is a folder with nothing in it, or one that can be made."""
    require_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder is not empty; give a new one")


@contextmanager
def appearing_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the body is done and vanishes if it fails.

    It lies beside `out` as `.<name>.unfinished`, and is locked while the body runs. What a killed process
    left there is removed by the next one that writes to `out`.

    Raises:
        InputError: `out` cannot be made, holds something, or is being written by another process.
        PruningError: somebody else filled `out` meanwhile; the message says where the checkpoint is instead.
    """
    out = out.resolve()
    require_empty(out)
    staging = out.with_name(f".{out.name}.unfinished")
    busy = InputError(f"--out {out}: another prune is writing there; give another folder, or wait for it")
    made = [place for place in out.parents if not place.exists()]
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror or error})") from error
    lock = FileLock(staging / _LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError) as error:  # it is at work, or just done
        raise busy from error
    try:
        if not (staging / _LOCK).exists():  # whoever had the lock took the folder away
            raise busy
        try:
            _clear(staging)
            require_empty(out)  # it may have been filled since
            yield staging
            settle_folder(staging)
            placed = _place(staging, out)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # of those above it, the ones that hold nothing else
                for place in made:
                    place.rmdir()
            raise
        (placed / _LOCK).unlink(missing_ok=True)
        if placed != out:
            raise PruningError(
                f"--out {out} was filled by somebody else: the finished checkpoint is {placed}"
            )
    finally:
        lock.release()


def _clear(staging: Path) -> None:
    """Removes what a killed process left; the lock stays."""
    for path in staging.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def _place(staging: Path, out: Path) -> Path:
    """Gives the finished folder its name, or one beside it where that is taken: no work is thrown away."""
    try:
        return staging.replace(out)  # an empty folder may stand there
    except OSError:
        if not out.exists():
            raise
        return staging.replace(out.with_name(f"{out.name}-{secrets.token_hex(4)}"))


__all__ = ["appearing_whole", "require_empty"]
