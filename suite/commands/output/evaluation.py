"""The metrics of one evaluation as lines of text, the dense model's beside them."""

from __future__ import annotations

from collections.abc import Iterator

from suite.results.records.record import Metric, Record

_ARROWS = {"higher": "↑", "lower": "↓", "none": " "}


def evaluation_rows(record: Record, dense: Record | None) -> Iterator[str]:
    """A line a metric: name, which way is better, protocol, value, interval or error, n, and the dense value.

    Args:
        record: of the model.
        dense: of its dense model, if there is one.
    """
    rows = [("metric", "", "protocol", "value", "95 % interval", "n", "dense" if dense else "")]
    for metric in record.metrics:
        beside = dense.metric(metric.name, metric.protocol) if dense else None
        rows.append(
            (
                metric.name,
                _ARROWS[metric.direction],
                metric.protocol,
                _number(metric.value) if metric.value is not None else f"({metric.status})",
                _spread(metric),
                "" if metric.n is None else str(metric.n),
                _number(beside.value) if beside else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    # A long reason for a missing value must not push the other columns off the screen.
    widths[3] = max(len(row[3]) for row in rows if not row[3].startswith("("))
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _spread(metric: Metric) -> str:
    if metric.low is not None and metric.high is not None:
        return f"{_number(metric.low)} to {_number(metric.high)}"
    return f"± {_number(metric.stderr)} s.e." if metric.stderr is not None else ""


__all__ = ["evaluation_rows"]
