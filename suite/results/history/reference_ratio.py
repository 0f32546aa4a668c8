"""Times and rates as multiples of what the machine could do in the same run: a slow day cancels out."""

from __future__ import annotations

from suite.results.records.record import Record


def unit_of(record: Record, metric: str) -> str:
    """What `factor_of` makes values of a metric multiples of; empty where they stay as recorded.

    That is: where the metric is neither a time nor a rate, or the record has no reference speed.
    """
    if record.reference_speed is None:
        return ""
    if metric.endswith("_per_second"):
        return "x the dense forward's rate"
    if metric.endswith("_seconds"):
        return f"x the dense forward of {_forward_tokens(record):,} tokens"
    return ""


def factor_of(record: Record, metric: str) -> float:
    """By what a value is multiplied to be in `unit_of`; 1 where that is empty."""
    if not unit_of(record, metric):
        return 1.0
    assert record.reference_speed is not None
    rate = record.reference_speed.forward_tokens_per_second
    return 1 / rate if metric.endswith("_per_second") else rate / _forward_tokens(record)


def _forward_tokens(record: Record) -> int:
    """The calibration tokens, which a calibrated method forwards once; else those of the reference speed."""
    if record.calibration is not None:
        return record.calibration.n_samples * record.calibration.seqlen
    assert record.reference_speed is not None
    return record.reference_speed.batch_size * record.reference_speed.seqlen


__all__ = ["factor_of", "unit_of"]
