"""Keeps the rows of a run that may be cut at any moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import Row, Setting, load_rows, said, save_rows, title


class Ledger:
    """The rows of one stage, on disk as soon as they exist.

    A row that a former run finished is kept and not made again; one that failed is tried anew.

    Args:
        path: the stage's JSON file.
        setting: on what rows are made; those of a former run on another one are not kept.
        deadline: by `time.monotonic`; later no row is begun.

    Attributes:
        setting: on what rows are made.
        rows: so far.
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
        """Rows that have no numbers."""
        return sum(row.status != "ok" for row in self.rows)

    @property
    def out_of_time(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.monotonic() >= self._deadline

    def wants(self, row: Row, expected_seconds: float = 0) -> bool:
        """Whether a row is still to be made and there is time for it; says so if there is none."""
        if any(_key(made) == _key(row) for made in self.rows):
            return False
        left = self._deadline - time.monotonic()
        if left <= expected_seconds:
            needs = f", it needs about {expected_seconds:.0f} s" if expected_seconds else ""
            print(f"not begun, {max(0, left):.0f} s are left{needs}: {title(row)}", file=sys.stderr)
            return False
        return True

    def make(self, row: Row, work: Callable[[], Row], expected_seconds: float = 0) -> None:
        """Takes down what `work` makes of `row`; where it fails, why."""
        if not self.wants(row, expected_seconds):
            return
        print(f"{title(row)} ...", file=sys.stderr)
        self.take(_tried(row, work))

    def take(self, row: Row, *, aloud: bool = True) -> None:
        """Takes down a row, in place of one of the same name."""
        self.rows = [made for made in self.rows if _key(made) != _key(row)] + [row]
        save_rows(self._path, self.rows, self.setting)
        if aloud:
            print(said(row), file=sys.stderr)


def _tried(row: Row, work: Callable[[], Row]) -> Row:
    try:
        return work()
    except Exception as error:  # out of memory, or whatever a method throws: it stands in the table
        message = " ".join(str(error).split())[:300]
        return replace(row, status="failed", detail=f"{type(error).__name__}: {message}")


def _key(row: Row) -> tuple[object, ...]:
    return (row.stage, row.model, row.method, row.pattern, row.placement)


__all__ = ["Ledger"]
