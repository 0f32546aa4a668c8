"""Tables as rows of text, ready for any page: every heading says unit, protocol, n and direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.rankings.phases import PHASES, spent_by_phase
from reports.rankings.ranking import Entry, Ranking
from reports.rankings.scores import Score
from reports.wording import (
    MISSING,
    NBSP,
    counted,
    decimal,
    gibibytes,
    interval,
    pattern_name,
    percent,
    seconds,
    target_sparsity,
    visible,
)

MARKS = {"best": "best", "tied": "tied with best", "only": "only one", "lowest": "lowest", "": ""}


@dataclass(frozen=True)
class Heading:
    """A column's name, and in smaller print what its numbers need to be read rightly."""

    text: str
    detail: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class TableCell:
    """One cell: the number, what qualifies it, and a mark in words."""

    text: str
    detail: str = ""
    mark: str = ""
    link: str = ""
    """The anchor of the cell's provenance."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[TableCell, ...], ...]


def ranking_table(ranking: Ranking) -> Table:
    """Dense first, then best to worst."""
    entries = ([ranking.dense] if ranking.dense else []) + list(ranking.entries)
    on_device = any(e.peak_device_bytes is not None for e in entries)
    target = target_sparsity(ranking.pattern)
    headings = [Heading("Method", "with its settings", numeric=False)]
    for protocol in ranking.setting.protocols:
        n = counted(protocol.n, "window")
        headings.append(
            Heading("Perplexity ↓", f"{visible(protocol.name)}\nn = {n}\n95\u00a0% interval\nlower is better")
        )
        headings.append(Heading("× dense ↓", "same windows\npaired 95\u00a0% interval\nlower is better"))
    headings += [
        Heading(
            "Sparsity", f"achieved\ntarget {100 * target:g}{NBSP}%" if target is not None else "achieved"
        ),
        Heading("Prune time ↓", "s, method phases\none run\nlower is better"),
        Heading("End to end ↓", "s, model loaded\none run\nlower is better"),
        Heading("Host memory ↓", "GiB, peak\none run\nlower is better"),
    ]
    if on_device:
        headings.append(Heading("Device memory ↓", "GiB, peak\none run\nlower is better"))
    rows = tuple(_ranking_row(entry, on_device=on_device) for entry in entries)
    return Table(f"{ranking.setting.model}, {pattern_name(ranking.pattern)}", tuple(headings), rows)


def cost_table(rankings: Sequence[Ranking]) -> Table:
    """Seconds by phase for every cell of one setting; dense once."""
    rows = [(r.pattern, e) for r in rankings for e in r.entries]
    dense = rankings[0].dense
    if dense is not None:
        rows.insert(0, (None, dense))
    spent = [spent_by_phase(entry.record) for _, entry in rows]
    names = {name for phases in spent for name in phases}
    phases = [p for p in PHASES if p in names] + sorted(names - set(PHASES))
    headings = (
        Heading("Method", "with its settings", numeric=False),
        Heading("Pattern", numeric=False),
        *(Heading(visible(phase), "s") for phase in phases),
        Heading("All", "s"),
        Heading("End to end", "s, the prune\nmodel loaded"),
        Heading("× forward", "prune time over one\ndense forward"),
    )
    body = tuple(
        (
            TableCell(entry.label, link=entry.cell),
            TableCell(pattern_name(pattern)),
            *(TableCell(seconds(took.get(phase))) for phase in phases),
            TableCell(seconds(sum(took.values()) if took else None)),
            TableCell(seconds(entry.end_to_end_seconds)),
            TableCell(decimal(_forwards(entry), 1)),
        )
        for (pattern, entry), took in zip(rows, spent, strict=True)
    )
    return Table("seconds by phase, one run each, lower is better", headings, body)


def frame_table(frame: pd.DataFrame, caption: str) -> Table:
    """A figure's data, one row a mark."""
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns}
    headings = tuple(
        Heading(name.replace("_", " "), numeric=is_number) for name, is_number in numeric.items()
    )
    rows = tuple(
        tuple(TableCell(_plain(value)) for value in row) for row in frame.itertuples(index=False, name=None)
    )
    return Table(caption, headings, rows)


def _ranking_row(entry: Entry, *, on_device: bool) -> tuple[TableCell, ...]:
    place = f"{entry.rank}. " if entry.rank is not None else ""
    named = TableCell(place + entry.label, "; ".join(entry.remarks), link=entry.cell)
    cells = [named]
    for score in entry.scores:
        cells += [score_cell(score), ratio_cell(score, is_dense=entry.record.cell.is_dense)]
    sparsity = entry.record.metric("sparsity")
    cells += [
        TableCell(percent(sparsity.value if sparsity else None)),
        TableCell(seconds(entry.method_seconds)),
        TableCell(seconds(entry.end_to_end_seconds)),
        TableCell(gibibytes(entry.peak_host_bytes)),
    ]
    return (*cells, TableCell(gibibytes(entry.peak_device_bytes))) if on_device else tuple(cells)


def score_cell(score: Score) -> TableCell:
    """A perplexity with its interval and its mark."""
    if score.value is None:
        return TableCell(MISSING, visible(score.status))
    spread = interval(score.low, score.high)
    return TableCell(decimal(score.value), spread or f"no interval, n = {score.n}", MARKS[score.mark])


def ratio_cell(score: Score, *, is_dense: bool) -> TableCell:
    """The perplexity as a multiple of dense, with its paired interval."""
    if is_dense:
        return TableCell(decimal(1.0), "by definition")
    if score.to_dense is None:
        return TableCell(MISSING)
    spread = interval(score.to_dense.low, score.to_dense.high)
    return TableCell(decimal(score.to_dense.value), spread or f"no interval, n = {score.n}")


def _forwards(entry: Entry) -> float | None:
    """Prune time as a multiple of the least work any calibrated method must do on this machine."""
    floor, calibration = entry.record.floor, entry.record.calibration
    if floor is None or calibration is None or entry.method_seconds is None:
        return None
    tokens = calibration.n_samples * calibration.seqlen
    return entry.method_seconds * floor.forward_tokens_per_second / tokens


def _plain(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return MISSING if not math.isfinite(value) else f"{value:.6g}"
    return str(value)
