"""How the values of metrics are written in lines of text."""

from __future__ import annotations


def number(value: float | None) -> str:
    """Four digits that matter; whole where it is large."""
    if value is None:
        return "none"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"


__all__ = ["number"]
