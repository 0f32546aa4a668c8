"""Formats the values of metrics for lines of text."""

from __future__ import annotations


def number(value: float | None) -> str:
    """Formats a value with four significant digits, or from 10,000 on as a whole number; None as `none`."""
    if value is None:
        return "none"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"


__all__ = ["number"]
