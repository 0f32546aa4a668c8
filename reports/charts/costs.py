"""What a figure can hold quality against: each kind of cost, how it is said, and of what it is not known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from reports.rankings.ranking import METHOD_PHASES, Entry, Ranking
from reports.wording import GIB, counted
from suite.results.records.comparability import machine_of


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
    of_checkpoint: str
    """Why a finished checkpoint has none, as an apposition."""
    of: Callable[[Entry], float | None]
    """None where it is not known."""

    def left_out(self, entries: Sequence[Entry]) -> str:
        """A sentence for the note about those whose cost is not known; empty where there are none."""
        n_checkpoints = sum(entry.record.checkpoint is not None for entry in entries)
        n_others = len(entries) - n_checkpoints
        said = [f"{counted(n_others, 'method')} whose {self.noun} was not recorded"] if n_others else []
        if n_checkpoints:
            said.append(f"{counted(n_checkpoints, 'finished checkpoint')}, {self.of_checkpoint}")
        return f" Left out: {'; '.join(said)}." if said else ""


def machine_numbers(rankings: Iterable[Ranking]) -> dict[str, int]:
    """Cell -> the number of its kind of machine, from 1 in the order in which they come."""
    entries = [entry for ranking in rankings for entry in ranking.entries]
    numbers: dict[str, int] = {}
    return {e.cell: numbers.setdefault(machine_of(e.record), len(numbers) + 1) for e in entries}


def on_machines(n: int) -> str:
    """How a title says that what it shows does not all compare."""
    return f"measured on {n} kinds of machine, thread counts or placements"


def machines_note(machines: Collection[int], what: str) -> str:
    """A sentence for the note where the machines of what is shown are of several kinds."""
    n = len(set(machines))
    if n < 2:
        return ""
    return f" {on_machines(n).capitalize()}: {what} only within one of them; the table numbers them."


def _gib_of_pruning(entry: Entry, n_bytes: float | None) -> float | None:
    """A finished checkpoint has a peak too, but that of evaluating."""
    return None if n_bytes is None or entry.record.checkpoint is not None else n_bytes / GIB


TIME = Cost(
    "time",
    "Prune time",
    "prune time",
    "shortest prune time",
    "s",
    "seconds",
    f"seconds in the method's own phases ({', '.join(METHOD_PHASES)}; one run, no interval)",
    "not pruned here",
    lambda entry: entry.method_seconds,
)
COSTS = (
    TIME,
    Cost(
        "memory",
        "Host memory",
        "host memory",
        "lowest host memory",
        "GiB",
        "host GiB",
        "the highest resident memory of the whole cell, evaluation included (one run, no interval)",
        "of which only the memory of evaluating is known",
        lambda entry: _gib_of_pruning(entry, entry.peak_host_bytes),
    ),
    Cost(
        "device-memory",
        "Device memory",
        "device memory",
        "lowest device memory",
        "GiB",
        "device GiB",
        "the highest memory allocated on the accelerator (one run, no interval)",
        "of which only the memory of evaluating is known",
        lambda entry: _gib_of_pruning(entry, entry.peak_device_bytes),
    ),
)


__all__ = ["COSTS", "TIME", "Cost", "machine_numbers", "machines_note", "on_machines"]
