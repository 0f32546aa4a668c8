"""The kinds of cost that figures compare with quality: their wording, and the methods without that cost."""

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
    """Name of the figure."""
    tab: str
    noun: str
    least: str
    """Describes the cheapest method."""
    unit: str
    column: str
    """Heading of the table column."""
    about: str
    """Describes what is measured."""
    of_checkpoint: str
    """Why a finished checkpoint has no such cost, as an apposition."""
    of: Callable[[Entry], float | None]
    """Returns the cost of an entry; None if it is unknown."""

    def left_out(self, entries: Sequence[Entry]) -> str:
        """Returns a sentence about the entries with unknown cost; empty if there are none."""
        n_checkpoints = sum(entry.record.checkpoint is not None for entry in entries)
        n_others = len(entries) - n_checkpoints
        parts = [f"{counted(n_others, 'method')} whose {self.noun} was not recorded"] if n_others else []
        if n_checkpoints:
            parts.append(f"{counted(n_checkpoints, 'finished checkpoint')}, {self.of_checkpoint}")
        return f" Left out: {'; '.join(parts)}." if parts else ""


def machine_numbers(rankings: Iterable[Ranking]) -> dict[str, int]:
    """Maps each cell to the number of its kind of machine, counted from 1 in order of appearance."""
    entries = [entry for ranking in rankings for entry in ranking.entries]
    numbers: dict[str, int] = {}
    return {e.cell: numbers.setdefault(machine_of(e.record), len(numbers) + 1) for e in entries}


def on_machines(n: int) -> str:
    """Describes in a title that the values shown come from machines that are not comparable."""
    return f"measured on {n} kinds of machine, thread counts or placements"


def machines_note(machines: Collection[int], what: str) -> str:
    """Returns a sentence for the note if the values shown come from several kinds of machine."""
    n = len(set(machines))
    if n < 2:
        return ""
    return f" {on_machines(n).capitalize()}: {what} only within one of them; the table numbers them."


def _gib_of_pruning(entry: Entry, n_bytes: float | None) -> float | None:
    """Returns None for a finished checkpoint: its peak is that of the evaluation."""
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
