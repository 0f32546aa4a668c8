"""Every metric of every record as one tidy table, one row per number, with all that makes it comparable."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from reports.rankings.comparison import ReportError
from reports.rankings.frame import IDENTITY, identity
from reports.wording import visible
from suite.results.records.record import Metric, Record
from suite.results.records.state import describe_failure

COLUMNS = (
    *IDENTITY,
    *("metric", "protocol", "value", "stderr", "low", "high", "n", "direction", "metric_status"),
    *("revision", "settings", "allocation", "checkpoint", "threads"),
    *("calibration_source", "calibration_samples", "calibration_seqlen", "calibration_seed"),
    *("corpus_revision", "corpus_limit", "corpus_digest", "questions_digest"),
    *("cell_digest", "record_digest", "weight_digest", "mask_digest", "calibration_digest"),
    *("prunebench", "method_version", "source_digest", "git_commit", "git_clean"),
    *("device", "processor", "placement"),
    *("created", "failure"),
)
_NUMBERS = ("value", "stderr", "low", "high")
_COUNTS = (
    *("n", "threads", "calibration_samples", "calibration_seqlen", "calibration_seed"),
    *("corpus_limit", "method_version"),
)


def long_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Returns one row per metric of every record (`COLUMNS`); a record without metrics has one with the
    reason.

    Raises:
        ReportError: there are no records.
    """
    if not records:
        raise ReportError("no records to export: run a suite first, or name a folder that holds its results")
    rows = [
        {**_whose(record), **_metric(metric), **_measured_on(record, metric)}
        for record in records
        for metric in (record.metrics or (None,))
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "Int64"))


def export_csv(records: Sequence[Record]) -> str:
    """Writes `long_frame` as CSV; every number reads back bit for bit.

    Raises:
        ReportError: there are no records.
    """
    text: str = long_frame(records).to_csv(index=False, lineterminator="\n")
    return text


def _metric(metric: Metric | None) -> dict[str, object]:
    if metric is None:
        return {}
    return {
        "metric": visible(metric.name),
        "protocol": visible(metric.protocol),
        "value": metric.value,
        "stderr": metric.stderr,
        "low": metric.low,
        "high": metric.high,
        "n": metric.n,
        "direction": metric.direction,
        "metric_status": visible(metric.status),
    }


def _measured_on(record: Record, metric: Metric | None) -> dict[str, object]:
    if metric is None:
        return {}
    windows = next((w for w in record.windows if w.protocol == metric.protocol), None)
    task = next((t for t in record.tasks if t.protocol == metric.protocol), None)
    return {
        "corpus_revision": visible(windows.corpus_revision) if windows else None,
        "corpus_limit": windows.limit if windows else task.limit if task else None,
        "corpus_digest": visible(windows.corpus_digest) if windows else None,
        "questions_digest": task.items_digest if task else None,
    }


def _whose(record: Record) -> dict[str, object]:
    cell, code, used = record.cell, record.code, record.calibration
    return {
        **identity(record),
        "revision": record.model.revision if record.model else cell.revision,
        "settings": json.dumps(cell.settings),
        "allocation": visible(cell.allocation.name) if cell.allocation else None,
        "checkpoint": visible(cell.checkpoint) if cell.checkpoint else None,
        "threads": record.environment.threads,
        "calibration_source": visible(used.source) if used else None,
        "calibration_samples": used.n_samples if used else None,
        "calibration_seqlen": used.seqlen if used else None,
        "calibration_seed": used.seed if used else None,
        "cell_digest": cell.digest,
        "record_digest": record.body_digest,
        "weight_digest": record.model.weight_digest if record.model else None,
        "mask_digest": record.mask_digest,
        "calibration_digest": used.digest if used else None,
        "prunebench": code.prunebench,
        "method_version": code.method_version,
        "source_digest": code.source_digest,
        "git_commit": code.git_commit,
        "git_clean": code.git_clean,
        "device": visible(record.environment.device),
        "processor": visible(record.environment.processor),
        "placement": record.placement,
        "created": record.created,
        "failure": visible(describe_failure(record)) or None,
    }


__all__ = ["COLUMNS", "export_csv", "long_frame"]
