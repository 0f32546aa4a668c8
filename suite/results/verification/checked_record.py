"""The input of the checks of one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.results.records.items import ItemRow
from suite.results.records.record import SCHEMA_VERSION, Record
from suite.results.verification.findings import Finding, one_line


@dataclass(frozen=True)
class Subject:
    """A readable record with its side file and the dense records in its folder.

    Attributes:
        path: the file of the record.
        record: the record.
        items: the rows of the side file; None if there is no intact side file.
        dense: the records of dense models in the same folder.
        schema_version: schema version of the file; in older versions, metrics lack intervals and later
            metrics are absent.
    """

    path: Path
    record: Record
    items: Sequence[ItemRow] | None = None
    dense: tuple[Record, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def is_migrated(self) -> bool:
        """Whether the file has an older schema version."""
        return self.schema_version < SCHEMA_VERSION

    def problem(self, check: str, message: str) -> Finding:
        """Returns a problem of this record."""
        return Finding(self.path, check, "problem", one_line(message))

    def remark(self, check: str, message: str) -> Finding:
        """Returns a remark about this record."""
        return Finding(self.path, check, "remark", one_line(message))

    def values(self, protocol: str, metric: str) -> list[float | None] | None:
        """Returns the values of one metric's rows, in order; None without a side file or such rows."""
        if self.items is None:
            return None
        found = [row.value for row in self.items if (row.protocol, row.metric) == (protocol, metric)]
        return found or None


__all__ = ["Subject"]
