"""What the checks of one record look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.results.records.items import ItemRow
from suite.results.records.record import SCHEMA_VERSION, Record
from suite.results.verification.findings import Finding, one_line


@dataclass(frozen=True)
class Subject:
    """A record that could be read, and what lies beside it.

    Attributes:
        path: its file.
        record: what it says.
        items: the rows of its side file; None where it has none that can be trusted.
        dense: the records of dense models in the same folder.
        schema_version: of the file; older ones have metrics without intervals, and lack later metrics.
    """

    path: Path
    record: Record
    items: Sequence[ItemRow] | None = None
    dense: tuple[Record, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def is_migrated(self) -> bool:
        """Whether the file is of an older schema."""
        return self.schema_version < SCHEMA_VERSION

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


__all__ = ["Subject"]
