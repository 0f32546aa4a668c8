"""What the checks of one record look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from suite.results.records.record import Record
from suite.results.verification.findings import Finding, one_line


class StoredItem(NamedTuple):
    """A row of a side file, as `suite.evaluation.measure` writes it."""

    protocol: str
    metric: str
    item: int
    item_digest: str
    prompt_hash: str | None
    target_hash: str | None
    value: float | None
    n_tokens: int | None


@dataclass(frozen=True)
class Subject:
    """A record that could be read, and what lies beside it.

    Attributes:
        path: its file.
        record: what it says.
        items: the rows of its side file; None where it has none that can be trusted.
        dense: the records of dense models in the same folder.
        migrated: whether the file is of an older schema, whose metrics may have no interval.
    """

    path: Path
    record: Record
    items: Sequence[StoredItem] | None = None
    dense: tuple[Record, ...] = ()
    migrated: bool = False

    def problem(self, check: str, message: str) -> Finding:
        """A problem of this record."""
        return Finding(self.path, check, "problem", one_line(message))

    def remark(self, check: str, message: str) -> Finding:
        """A remark about this record."""
        return Finding(self.path, check, "remark", one_line(message))

    def values(self, protocol: str, metric: str) -> list[float | None] | None:
        """The values of one metric's rows, in order; None without a side file or without such rows."""
        if self.items is None:
            return None
        found = [row.value for row in self.items if (row.protocol, row.metric) == (protocol, metric)]
        return found or None


__all__ = ["StoredItem", "Subject"]
