"""Formats numbers, patterns and foreign text, the same way everywhere on a page."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

MISSING = "–"
"""Shown in place of a number that does not exist; the reason is next to it."""

NBSP = "\u00a0"
"""Non-breaking space, which keeps a number and its unit on one line."""

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "neither way is better"}
"""Which direction is better, in words."""

GIB = 2**30
_MIB = 2**20


def decimal(value: float | None, places: int = 2) -> str:
    """Formats a number with fixed decimals, so that columns align; huge numbers get a power of ten."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= 1e6:
        return f"{value:.{places}e}"
    return f"{value:,.{places}f}"


def interval(low: float | None, high: float | None, places: int = 2) -> str:
    """Formats an interval as `low to high`; empty if there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{decimal(low, places)} to {decimal(high, places)}"


@dataclass(frozen=True)
class Unit:
    """How the values of a metric are written."""

    name: str = ""
    """Name for headings: `nats`, `tokens/s`."""
    sign: str = ""
    """Sign after each value."""
    factor: float = 1.0
    places: int = 2

    def value(self, value: float | None) -> str:
        """Formats a value with its sign."""
        written = decimal(None if value is None else self.factor * value, self.places)
        return f"{written}{NBSP}{self.sign}" if self.sign and written != MISSING else written

    def interval(self, low: float | None, high: float | None) -> str:
        """Formats an interval as `low to high`; empty if there is none."""
        if low is None or high is None:
            return ""
        return interval(self.factor * low, self.factor * high, self.places)


SHARE = Unit(sign="%", factor=100.0)
"""A share of 1, written as per cent."""


def better(direction: str) -> str:
    """Describes which direction is better; empty if neither is."""
    return "" if direction == "none" else BETTER[direction]


def seconds(value: float | None) -> str:
    """Formats seconds with one decimal; smaller values become `< 0.1` instead of 0."""
    if value is not None and 0 < value < 0.05:
        return "< 0.1"
    return decimal(value, 1)


def gibibytes(n_bytes: float | None) -> str:
    """Formats bytes as GiB."""
    return decimal(None if n_bytes is None else n_bytes / GIB, 2)


def mebibytes(n_bytes: float | None) -> str:
    """Formats bytes as MiB."""
    return decimal(None if n_bytes is None else n_bytes / _MIB, 1)


def probability(p_value: float) -> str:
    """Formats a p-value: `p = 0.012`, `p < 0.001`."""
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def target_sparsity(pattern: str | None) -> float | None:
    """Returns the share that a pattern prunes: `0.5` -> 0.5, `1:4` -> 0.75; None if it is neither."""
    if pattern is None:
        return None
    if match := re.fullmatch(r"(\d+):(\d+)", pattern):
        kept, of = int(match[1]), int(match[2])
        return 1 - kept / of if of else None
    try:
        share = float(pattern)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None  # neither is nan


def pattern_name(pattern: str | None) -> str:
    """Describes a pattern in words: `50 % unstructured`, `2:4`, `dense`."""
    if pattern is None:
        return "dense"
    share = target_sparsity(pattern)
    if share is None or ":" in pattern:
        return pattern
    return f"{100 * share:g}{NBSP}% unstructured"


def counted(n: int, one: str, many: str | None = None) -> str:
    """Formats a number with its noun: `1 cell`, `3 cells`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(parts: list[str]) -> str:
    """Joins words: `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def visible(text: str) -> str:
    """Escapes control and direction characters of a text, so that it is shown as it is stored.

    A right-to-left override in a model's name could otherwise reorder the sentence around it.
    """
    if text.isprintable():
        return text
    return "".join(_written_out(c) if _is_invisible(c) else c for c in text)


def _is_invisible(char: str) -> bool:
    # Cc: control, Cf: direction and zero-width, Cs: lone surrogates, Zl/Zp: line and paragraph separators.
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in "\n\t"


def _written_out(char: str) -> str:
    return f"\\u{ord(char):04x}"
