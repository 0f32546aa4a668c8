"""The data of the pages for download: one row per number as CSV, one object per record as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports.site.files.links import record_file, record_page
from reports.site.pages.record_tables import trust_word
from reports.site.records.site_record import SiteRecord
from suite.results.records.record import Metric

CSV_PATH = "data/records.csv"
JSON_PATH = "data/records.json"

COLUMNS = (
    *("record", "created", "trust", "model", "method", "variant", "pattern", "dtype", "seed"),
    *("metric", "protocol", "value", "stderr", "low", "high", "n", "direction", "status"),
)


def as_csv(records: Sequence[SiteRecord]) -> str:
    """Writes one row per metric of every record; a record without metrics gets one row without a metric.

    A text that a spreadsheet would read as a formula is prefixed with an apostrophe.
    """
    rows = [
        {**whose, **_numbers(metric)}
        for held in records
        for whose in [_whose(held)]
        for metric in held.record.metrics or (None,)
    ]
    # As objects, so that numbers of items stay integers next to missing ones.
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8", "backslashreplace").decode()


def _whose(held: SiteRecord) -> dict[str, object]:
    cell = held.record.cell
    return {
        "record": held.digest,
        "created": _inert(held.record.created),
        "trust": trust_word(held),
        "model": _inert(cell.model),
        "method": _inert(cell.method),
        "variant": _inert(cell.variant),
        "pattern": _inert(cell.pattern or "dense"),
        "dtype": cell.dtype,
        "seed": cell.calibration and cell.calibration.seed,
    }


def _numbers(metric: Metric | None) -> dict[str, object]:
    if metric is None:
        return {"status": "none"}
    texts = {"metric": metric.name, "protocol": metric.protocol, "status": metric.status}
    numbers = {name: getattr(metric, name) for name in ("value", "stderr", "low", "high", "n", "direction")}
    return {**{name: _inert(text) for name, text in texts.items()}, **numbers}


def as_json(records: Sequence[SiteRecord]) -> str:
    """Writes one object per record: its identity, its numbers, and the paths of its page and its file."""
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
