"""Records as tidy tables: one row per metric, per module or per phase.

Every frame starts with the same columns, which identify the record: `cell` (the first eight digits of the
cell's digest), `status`, `model`, `method`, `variant`, `pattern` (`dense` if nothing was pruned), `dtype`.
Missing numbers are NaN, never replaced by other values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from reports.wording import visible
from suite.results.records.record import Metric, ModuleReport, PhaseCost, Record

IDENTITY = ("cell", "status", "model", "method", "variant", "pattern", "dtype")
_OF_METRIC = ("protocol", "value", "stderr", "n", "direction")
_OF_MODULE = ("layer", "n_weights", "n_pruned", "sparsity", "error_before", "error_after", "damping", "swaps")
_OF_PHASE = ("seconds", "peak_host_bytes", "peak_device_bytes")
METRIC_COLUMNS = (*IDENTITY, "metric", *_OF_METRIC, "metric_status")
MODULE_COLUMNS = (*IDENTITY, "module", "layer", "block", *_OF_MODULE[1:], "moved")
PHASE_COLUMNS = (*IDENTITY, "phase", *_OF_PHASE)


def metrics_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Returns one row per metric of every record (`METRIC_COLUMNS`)."""
    rows = (
        {**whose, **_fields(metric, _OF_METRIC), "metric": metric.name, "metric_status": metric.status}
        for record, whose in _identified(records)
        for metric in record.metrics
    )
    return _frame(rows, METRIC_COLUMNS, numbers=("value", "stderr", "n"))


def modules_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Returns one row per target module of every record (`MODULE_COLUMNS`).

    `moved` is the share of the module's weights that a rebuild swapped: two per swap, one that is restored
    and one that is pruned.
    """
    rows = (
        {
            **whose,
            **_fields(report, _OF_MODULE),
            "module": visible(report.module),
            "block": visible(report.block),
            "moved": None if report.swaps is None else 2 * report.swaps / report.n_weights,
        }
        for record, whose in _identified(records)
        for report in record.modules
    )
    return _frame(rows, MODULE_COLUMNS, numbers=(*_OF_MODULE[3:], "moved"))


def phases_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Returns one row per phase of every record (`PHASE_COLUMNS`)."""
    rows = (
        {**whose, **_fields(phase, _OF_PHASE), "phase": phase.name}
        for record, whose in _identified(records)
        for phase in record.phases
    )
    return _frame(rows, PHASE_COLUMNS, numbers=_OF_PHASE)


def blocks_frame(modules: pd.DataFrame) -> pd.DataFrame:
    """Sums module rows to one row per block of a decoder layer.

    Weights and swaps add up; the error of a block is stored equally in all its modules.
    """
    keys = [*IDENTITY, "layer", "block"]
    summed = modules.groupby(keys, sort=False, dropna=False).agg(
        n_weights=("n_weights", "sum"),
        n_pruned=("n_pruned", "sum"),
        # A block in which no module counts swaps is NaN, not zero.
        swaps=("swaps", lambda column: column.sum(min_count=1)),
        error_before=("error_before", "first"),
        error_after=("error_after", "first"),
    )
    blocks = summed.reset_index()
    blocks["sparsity"] = blocks["n_pruned"] / blocks["n_weights"]
    blocks["moved"] = 2 * blocks["swaps"] / blocks["n_weights"]
    return blocks


def cell_id(record: Record) -> str:
    """Returns the eight digits that identify a record's cell on a page and in its file name."""
    return record.cell.digest[:8]


def identity(record: Record) -> dict[str, object]:
    """Returns the columns `IDENTITY`: which cell it is, and whether it has numbers."""
    cell = record.cell
    return {
        "cell": cell_id(record),
        "status": record.status,
        "model": visible(cell.model),
        "method": visible(cell.method),
        "variant": visible(cell.variant),
        "pattern": visible(cell.pattern or "dense"),
        "dtype": record.model.dtype if record.model else cell.dtype,
    }


def value_of(record: Record, name: str, protocol: str | None = None) -> float | None:
    """Returns the value of a metric; None if it has none or was not measured."""
    metric = record.metric(name, protocol)
    return None if metric is None else metric.value


def protocols_of(records: Iterable[Record], *names: str) -> list[str]:
    """Returns the protocols under which some record has a value of one of these metrics, in their order."""
    found = (m for record in records for m in record.metrics if m.name in names)
    return list(dict.fromkeys(m.protocol for m in found if m.value is not None))


def _identified(records: Iterable[Record]) -> Iterator[tuple[Record, dict[str, object]]]:
    return ((record, identity(record)) for record in records)


def _fields(of: Metric | ModuleReport | PhaseCost, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(of, name) for name in names}


def _frame(
    rows: Iterable[dict[str, object]], columns: tuple[str, ...], numbers: tuple[str, ...]
) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns)).astype(dict.fromkeys(numbers, "float64"))
