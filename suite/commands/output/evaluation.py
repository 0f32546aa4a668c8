"""The metrics of one evaluation as lines of text, beside those of the dense model."""

from __future__ import annotations

from collections.abc import Iterator

from suite.results.records.record import Metric, Record
from suite.results.wording import number

_ARROWS = {"higher": "↑", "lower": "↓", "none": " "}


def evaluation_rows(record: Record, dense: Record | None) -> Iterator[str]:
    """Yields one line per metric: name, better direction, protocol, value, interval or error, n, dense value.

    Args:
        record: record of the model.
        dense: record of its dense model, if there is one.
    """
    rows = [("metric", "", "protocol", "value", "95 % interval", "n", "dense" if dense else "")]
    for metric in record.metrics:
        beside = dense.metric(metric.name, metric.protocol) if dense else None
        rows.append(
            (
                metric.name,
                _ARROWS[metric.direction],
                metric.protocol,
                number(metric.value) if metric.value is not None else f"({metric.status})",
                _spread(metric),
                "" if metric.n is None else str(metric.n),
                number(beside.value) if beside else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    # Long reasons for missing values do not widen the column.
    has_value = [True, *(metric.value is not None for metric in record.metrics)]
    widths[3] = max(len(row[3]) for row, has in zip(rows, has_value, strict=True) if has)
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _spread(metric: Metric) -> str:
    if metric.low is not None and metric.high is not None:
        return f"{number(metric.low)} to {number(metric.high)}"
    return f"± {number(metric.stderr)} s.e." if metric.stderr is not None else ""


__all__ = ["evaluation_rows"]
