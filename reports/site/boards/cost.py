"""What pruning took, over the runs behind a row: medians, as tables show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from reports.site.records.site_record import SiteRecord
from reports.tables import Heading, TableCell
from reports.wording import MISSING, counted, gibibytes, listed, seconds, visible
from suite.results.statistics.comparability import machine_of

MACHINES_NAMED = 3
"""Kinds of machine that a note names; it counts the others."""


@dataclass(frozen=True)
class Spread:
    """A cost over several runs.

    Attributes:
        middle: their median.
        low: the lowest.
        high: the highest.
        n: how many say it.
    """

    middle: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Cost:
    """What pruning took.

    Attributes:
        seconds: end to end once the model is loaded; None where no run says it.
        host_bytes: the peak of resident memory while it pruned; None likewise.
        device_bytes: the peak on the accelerator; None without one.
        n_runs: runs that were asked, whether they say it or not.
    """

    seconds: Spread | None
    host_bytes: Spread | None
    device_bytes: Spread | None
    n_runs: int


def cost_of(records: Iterable[SiteRecord]) -> Cost:
    """The cost of some runs; those that do not say what they took are not among its n."""
    found = list(records)
    return Cost(
        seconds=_spread(found, "prune_seconds"),
        host_bytes=_spread(found, "peak_host_bytes"),
        device_bytes=_spread(found, "peak_device_bytes"),
        n_runs=len(found),
    )


def cost_headings(costs: Sequence[Cost]) -> list[Heading]:
    """Of the columns that `cost_cells` fills."""
    headings = [
        Heading("Prune time ↓", "s, end to end\nmedian of runs\nlower is better"),
        Heading("Host memory ↓", "GiB, peak\nmedian of runs\nlower is better"),
    ]
    if _on_device(costs):
        headings.append(Heading("Device memory ↓", "GiB, peak\nmedian of runs\nlower is better"))
    return headings


def cost_cells(cost: Cost, costs: Sequence[Cost]) -> list[TableCell]:
    """A row's cells; `costs` are those of all rows of the table."""
    missing = TableCell(MISSING, "not recorded" if cost.n_runs else "")
    cells = [_cell(cost.seconds, seconds, missing), _cell(cost.host_bytes, gibibytes, missing)]
    return [*cells, _cell(cost.device_bytes, gibibytes, missing)] if _on_device(costs) else cells


def machines_of(records: Iterable[SiteRecord]) -> list[str]:
    """The kinds of machine that records with a cost were made on; times compare on one kind only."""
    told = [held.record for held in records if held.record.metric("prune_seconds") is not None]
    return list(dict.fromkeys(visible(machine_of(record)) for record in told))


def machines_note(records: Iterable[SiteRecord]) -> str:
    """On which machines the costs of a table were had; empty where no record has any."""
    machines = machines_of(records)
    if not machines:
        return ""
    if len(machines) == 1:
        return f"Prune time and memory are of one kind of machine: {machines[0]}."
    named = machines[:MACHINES_NAMED]
    if len(machines) > MACHINES_NAMED:
        named.append(f"{len(machines) - MACHINES_NAMED} more")
    return (
        f"Prune time and memory are of {len(machines)} kinds of machine and compare only on the same one: "
        f"{listed(named)}."
    )


def _spread(records: Sequence[SiteRecord], name: str) -> Spread | None:
    metrics = [held.record.metric(name) for held in records]
    values = [metric.value for metric in metrics if metric is not None and metric.value is not None]
    return Spread(median(values), min(values), max(values), len(values)) if values else None


def _cell(spread: Spread | None, written: Callable[[float], str], missing: TableCell) -> TableCell:
    if spread is None:
        return missing
    runs = f"n = {counted(spread.n, 'run')}"
    low, high = written(spread.low), written(spread.high)
    return TableCell(written(spread.middle), f"{low} to {high}\n{runs}" if low != high else runs)


def _on_device(costs: Sequence[Cost]) -> bool:
    return any(cost.device_bytes is not None for cost in costs)
