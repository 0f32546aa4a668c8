"""Times and rates as multiples of the machine's reference speed in the same run, to cancel slow machines."""

from __future__ import annotations

from suite.results.records.record import Record


def unit_of(record: Record, metric: str) -> str:
    """Describes the unit of values multiplied by `factor_of`; empty if they are shown as recorded.

    Values are shown as recorded if the metric is neither a time nor a rate, or the record has no reference
    speed.
    """
    if record.reference_speed is None:
        return ""
    if metric.endswith("_per_second"):
        return "x the dense forward's rate"
    if metric.endswith("_seconds"):
        return f"x the dense forward of {_forward_tokens(record):,} tokens"
    return ""


def factor_of(record: Record, metric: str) -> float:
    """Returns the factor that converts a value to the unit `unit_of`; 1 if that is empty."""
    if not unit_of(record, metric):
        return 1.0
    assert record.reference_speed is not None
    rate = record.reference_speed.forward_tokens_per_second
    return 1 / rate if metric.endswith("_per_second") else rate / _forward_tokens(record)


def _forward_tokens(record: Record) -> int:
    """Counts the calibration tokens, which a method forwards once, or else those of the reference speed."""
    if record.calibration is not None:
        return record.calibration.n_samples * record.calibration.seqlen
    assert record.reference_speed is not None
    return record.reference_speed.batch_size * record.reference_speed.seqlen


__all__ = ["factor_of", "unit_of"]
