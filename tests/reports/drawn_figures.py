"""Figures of synthetic records, and what they draw."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from reports.charts import Figure, figures
from reports.rankings.comparison import compare
from suite.results.records.record import Record
from tests.reports.synthetic_measured import measured_quickstart


def drawn(records: list[Record]) -> dict[str, Figure]:
    """The figures of records that are all of one setting, by name."""
    rankings = compare(records).rankings
    assert len({r.setting for r in rankings}) == 1
    return {figure.name: figure for figure in figures(rankings)}


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    """What the chart draws."""
    (rows,) = figure.chart.to_dict()["datasets"].values()
    return rows


@lru_cache(maxsize=1)
def measured_figures() -> dict[str, Figure]:
    """Those of the quickstart with everything measured."""
    return drawn(measured_quickstart())
