"""The folder of a checkpoint: new, and there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from methods.errors import InputError

SUMMARY = "pruning.json"


def require_empty(out: Path) -> None:
    """Raises `InputError` unless `out` is a folder with nothing in it or does not exist."""
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder is not empty; give a new one")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a new folder")


@contextmanager
def appearing_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the body is done and vanishes if it fails."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        staging.chmod(0o755)  # mkdtemp makes it private
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        staging.replace(out)  # an empty folder may stand there
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `pruning.json`."""
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")


__all__ = ["SUMMARY", "appearing_whole", "require_empty", "write_summary"]
