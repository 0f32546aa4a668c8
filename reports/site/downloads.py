"""The data behind the pages: one row a number as CSV, one object a record as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from reports.site.files.links import record_file, record_page
from reports.site.pages.record_tables import trust_word
from reports.site.records.site_record import SiteRecord

CSV_PATH = "data/records.csv"
JSON_PATH = "data/records.json"

COLUMNS = (
    *("record", "created", "trust", "model", "method", "variant", "pattern", "dtype", "seed"),
    *("metric", "protocol", "value", "stderr", "low", "high", "n", "direction", "status"),
)


def as_csv(records: Sequence[SiteRecord]) -> str:
    """A row a metric of every record; one row without a metric for a record that has none.

    A text that a spreadsheet would take for a formula begins with an apostrophe here.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for held in records:
        cell = held.record.cell
        identity = [
            held.digest,
            _inert(held.record.created),
            trust_word(held),
            _inert(cell.model),
            _inert(cell.method),
            _inert(cell.variant),
            _inert(cell.pattern or "dense"),
            cell.dtype,
            "" if cell.calibration is None else cell.calibration.seed,
        ]
        for metric in held.record.metrics:
            numbers = (metric.value, metric.stderr, metric.low, metric.high, metric.n)
            writer.writerow(
                [
                    *identity,
                    _inert(metric.name),
                    _inert(metric.protocol),
                    *("" if number is None else repr(number) for number in numbers),
                    metric.direction,
                    _inert(metric.status),
                ]
            )
        if not held.record.metrics:
            writer.writerow([*identity, *[""] * 8, "none"])
    return _encodable(buffer.getvalue())


def as_json(records: Sequence[SiteRecord]) -> str:
    """An object a record: what it is, its numbers, and where its page and its file lie."""
    return json.dumps([_object(held) for held in records], indent=1, allow_nan=False) + "\n"


def _object(held: SiteRecord) -> dict[str, Any]:
    record = held.record
    fields = {"status", "created", "cell", "code", "model", "checkpoint", "calibration", "mask_digest"}
    return {
        "record": held.digest,
        "page": record_page(held.digest),
        "file": record_file(held.digest),
        "trust": trust_word(held),
        "schema_version": held.schema_version,
        **record.model_dump(mode="json", include={*fields, "metrics"}),
    }


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
