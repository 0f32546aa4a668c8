"""Checks the side file alone: whether it belongs to the record and is a table of items."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from suite.results.records.items import ItemRow
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding

_TEXT, _WHOLE, _NUMBER = ("string", "large_string"), ("int64",), ("double",)
_TYPES = {
    "protocol": _TEXT,
    "metric": _TEXT,
    "item": _WHOLE,
    "item_digest": _TEXT,
    "prompt_hash": _TEXT,
    "target_hash": _TEXT,
    "value": _NUMBER,
    "n_tokens": _WHOLE,
}
"""Maps each column to the names of the Arrow types that it may have."""
_FILLED = ("protocol", "metric", "item", "item_digest")
"""Columns that must not have missing values."""
_UNREADABLE = (OSError, ValueError, NotImplementedError, MemoryError, OverflowError, pa.ArrowException)
"""Exceptions that Arrow raises for bytes that are not a table, invalid UTF-8, or impossible sizes."""


def read_side_file(subject: Subject, data: bytes | None) -> tuple[tuple[ItemRow, ...] | None, list[Finding]]:
    """Reads a record's side file from its bytes.

    If the digest does not match, the content is not read, because a damaged file proves nothing.

    Args:
        subject: the record.
        data: content of the file; None if it does not exist.

    Returns:
        The rows, or None if there is no intact side file; and the findings.
    """
    record = subject.record
    named = record.side_file
    if named is None:
        if record.status == "complete" and (record.windows or record.tasks):
            return None, [
                subject.problem("side-file", "names no side file, and has items that belong in one")
            ]
        return None, []
    if data is None:
        return None, [subject.problem("side-file", f"its side file {named.name} is not there")]
    found = hashlib.sha256(data).hexdigest()
    if found != named.sha256:
        message = f"its side file {named.name} has digest {found[:12]}, not {named.sha256[:12]}"
        return None, [subject.problem("side-file", message)]
    try:
        table = pq.read_table(pa.BufferReader(data))
        problem = _form(table, named.rows)
        columns = [table.column(name).to_pylist() for name in ItemRow._fields] if problem is None else []
    except _UNREADABLE as error:
        return None, [subject.problem("side-file", f"its side file {named.name} is no parquet file: {error}")]
    if problem is not None:
        return None, [subject.problem("side-file", f"its side file {named.name} {problem}")]
    return tuple(ItemRow(*row) for row in zip(*columns, strict=True)), []


def _form(table: pa.Table, rows: int) -> str | None:
    """Describes what is wrong with the number of rows, or with columns or types; None if all are right."""
    if table.num_rows != rows:
        return f"has {table.num_rows} rows, and the record says {rows}"
    if tuple(table.column_names) != ItemRow._fields:
        return f"has columns {', '.join(table.column_names)}, not {', '.join(ItemRow._fields)}"
    for name, allowed in _TYPES.items():
        column = table.column(name)
        if name in _FILLED and column.null_count:
            return f"has {column.null_count} rows without {name}"
        # A column without any value may have any type.
        if column.null_count < rows and str(column.type) not in allowed:
            return f"has {column.type} in column {name}, not {allowed[0]}"
    return None


__all__ = ["read_side_file"]
