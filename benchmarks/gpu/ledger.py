"""Stores the rows of a run that may be interrupted at any time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import Row, Setting, load_rows, said, save_rows, title


class Ledger:
    """The rows of one stage, saved to disk as soon as they exist.

    A row that an earlier run finished is kept and not measured again; a failed one is tried again.

    Args:
        path: the stage's JSON file.
        setting: hardware and software of the rows; rows of an earlier run with another setting are dropped.
        deadline: value of `time.monotonic` after which no row is started.

    Attributes:
        setting: hardware and software of the rows.
        rows: the rows so far.
    """

    def __init__(self, path: Path, setting: Setting, deadline: float) -> None:
        self._path = path
        self.setting = setting
        self._deadline = deadline
        self.rows: list[Row] = []
        if path.is_file():
            rows, made_on = load_rows(path)
            if made_on == setting:
                self.rows = [row for row in rows if row.status == "ok"]

    @property
    def n_failed(self) -> int:
        """Number of rows without numbers."""
        return sum(row.status != "ok" for row in self.rows)

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline has passed, so that nothing more is started."""
        return time.monotonic() >= self._deadline

    def wants(self, row: Row, expected_seconds: float = 0) -> bool:
        """Whether a row is missing and there is time for it; prints a message if there is no time."""
        if any(_key(made) == _key(row) for made in self.rows):
            return False
        left = self._deadline - time.monotonic()
        if left <= expected_seconds:
            needs = f", it needs about {expected_seconds:.0f} s" if expected_seconds else ""
            print(f"not started, {max(0, left):.0f} s are left{needs}: {title(row)}", file=sys.stderr)
            return False
        return True

    def make(self, row: Row, work: Callable[[], Row], expected_seconds: float = 0) -> None:
        """Takes the row that `work` returns; if it fails, a row with the error."""
        if not self.wants(row, expected_seconds):
            return
        print(f"{title(row)} ...", file=sys.stderr)
        self.take(_tried(row, work))

    def take(self, row: Row, *, aloud: bool = True) -> None:
        """Adds a row, replacing one with the same key."""
        self.rows = [made for made in self.rows if _key(made) != _key(row)] + [row]
        save_rows(self._path, self.rows, self.setting)
        if aloud:
            print(said(row), file=sys.stderr)


def _tried(row: Row, work: Callable[[], Row]) -> Row:
    try:
        return work()
    except Exception as error:  # out of memory, or any error of a method: record it in the table
        message = " ".join(str(error).split())[:300]
        return replace(row, status="failed", detail=f"{type(error).__name__}: {message}")


def _key(row: Row) -> tuple[object, ...]:
    return (row.stage, row.model, row.method, row.pattern, row.placement)


__all__ = ["Ledger"]
