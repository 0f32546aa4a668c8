"""The cost of pruning over the runs of a row: medians, formatted for tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from reports.rankings.frame import value_of
from reports.site.records.site_record import SiteRecord
from reports.tables import Column, TableCell, numbers
from reports.wording import MISSING, counted, gibibytes, listed, seconds, visible
from suite.results.records.comparability import machine_of

MACHINES_NAMED = 3
"""Maximum number of kinds of machine that a note names; it only counts the others."""


@dataclass(frozen=True)
class Spread:
    """A cost over several runs.

    Attributes:
        middle: the median.
        low: the lowest value.
        high: the highest value.
        n: number of runs with a value.
    """

    middle: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Cost:
    """The cost of pruning.

    Attributes:
        seconds: end to end once the model is loaded; None if no run recorded it.
        host_bytes: peak of resident memory during pruning; None if no run recorded it.
        device_bytes: peak on the accelerator; None without one.
        n_runs: number of runs, with or without a recorded cost.
    """

    seconds: Spread | None
    host_bytes: Spread | None
    device_bytes: Spread | None
    n_runs: int


def cost_of(records: Iterable[SiteRecord]) -> Cost:
    """Returns the cost over some runs; runs without a recorded cost do not count in its n."""
    found = list(records)
    return Cost(
        seconds=_spread(found, "prune_seconds"),
        host_bytes=_spread(found, "peak_host_bytes"),
        device_bytes=_spread(found, "peak_device_bytes"),
        n_runs=len(found),
    )


def cost_columns(costs: Sequence[Cost]) -> Iterator[Column]:
    """Yields columns of time and memory, one row per cost; memory of an accelerator only if one was used."""
    n_runs = [cost.n_runs for cost in costs]
    yield _column("Prune time ↓", "s, end to end", [c.seconds for c in costs], n_runs, seconds)
    yield _column("Host memory ↓", "GiB, peak", [c.host_bytes for c in costs], n_runs, gibibytes)
    if any(cost.device_bytes is not None for cost in costs):
        yield _column("Device memory ↓", "GiB, peak", [c.device_bytes for c in costs], n_runs, gibibytes)


def machines_of(records: Iterable[SiteRecord]) -> list[str]:
    """Lists the kinds of machine of the records with a cost; times are comparable on one kind only."""
    timed = [held.record for held in records if held.record.metric("prune_seconds") is not None]
    return list(dict.fromkeys(visible(machine_of(record)) for record in timed))


def machines_note(records: Iterable[SiteRecord]) -> str:
    """Describes the machines on which the costs of a table were measured; empty if no record has costs."""
    machines = machines_of(records)
    if not machines:
        return ""
    if len(machines) == 1:
        return f"Prune time and memory were measured on one kind of machine: {machines[0]}."
    named = machines[:MACHINES_NAMED]
    if len(machines) > MACHINES_NAMED:
        named.append(f"{len(machines) - MACHINES_NAMED} more")
    return (
        f"Prune time and memory were measured on {len(machines)} kinds of machine and are comparable only on "
        f"the same one: {listed(named)}."
    )


def _spread(records: Sequence[SiteRecord], name: str) -> Spread | None:
    values = [value for held in records if (value := value_of(held.record, name)) is not None]
    return Spread(median(values), min(values), max(values), len(values)) if values else None


def _column(
    text: str,
    unit: str,
    spreads: Sequence[Spread | None],
    n_runs: Sequence[int],
    written: Callable[[float], str],
) -> Column:
    cells = [
        TableCell(MISSING, "not recorded" if n else "") if spread is None else _cell(spread, written)
        for spread, n in zip(spreads, n_runs, strict=True)
    ]
    return numbers(text, cells, f"{unit}\nmedian of runs\nlower is better")


def _cell(spread: Spread, written: Callable[[float], str]) -> TableCell:
    runs = f"n = {counted(spread.n, 'run')}"
    low, high = written(spread.low), written(spread.high)
    return TableCell(written(spread.middle), f"{low} to {high}\n{runs}" if low != high else runs)
