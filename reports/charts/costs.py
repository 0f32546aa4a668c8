"""What a figure can hold quality against: each kind of cost, and how it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reports.ranking import Entry

_GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """One kind of cost."""

    name: str
    """Of the figure."""
    tab: str
    noun: str
    least: str
    """What the cheapest has."""
    unit: str
    column: str
    """Of the table."""
    about: str
    """What is counted."""
    of: Callable[[Entry], float | None]


def _gib(n_bytes: float | None) -> float | None:
    return None if n_bytes is None else n_bytes / _GIB


COSTS = (
    Cost(
        "time",
        "Prune time",
        "prune time",
        "shortest prune time",
        "s",
        "seconds",
        "seconds in the method's own phases (statistics, solve, propagate; one run, no interval)",
        lambda entry: entry.method_seconds,
    ),
    Cost(
        "memory",
        "Host memory",
        "host memory",
        "lowest host memory",
        "GiB",
        "host GiB",
        "the highest resident memory of the whole cell, evaluation included (one run, no interval)",
        lambda entry: _gib(entry.peak_host_bytes),
    ),
    Cost(
        "device-memory",
        "Device memory",
        "device memory",
        "lowest device memory",
        "GiB",
        "device GiB",
        "the highest memory allocated on the accelerator (one run, no interval)",
        lambda entry: _gib(entry.peak_device_bytes),
    ),
)


__all__ = ["COSTS", "Cost"]
