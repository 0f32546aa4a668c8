"""Tables as columns of text for page, site and paper; headings give unit, protocol, n and direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from reports.rankings.frame import value_of
from reports.rankings.phases import PHASES, spent_by_phase
from reports.rankings.ranking import Entry, Ranking
from reports.rankings.scores import Score
from reports.wording import (
    MISSING,
    NBSP,
    SHARE,
    counted,
    decimal,
    gibibytes,
    interval,
    pattern_name,
    seconds,
    target_sparsity,
    visible,
)

MARKS = {"best": "best", "tied": "tied with best", "only": "only one", "lowest": "lowest", "": ""}


@dataclass(frozen=True)
class TableCell:
    """One cell: the number, its details, and a mark in words."""

    text: str
    detail: str = ""
    """Shown below in smaller print; in a paper, a footnote."""
    mark: str = ""
    link: str = ""
    """Target of the link; in a paper, the key of the reference to cite."""
    error: str = ""
    """The digits of its standard error, if a paper prints it."""


@dataclass(frozen=True)
class Column:
    """A column: its heading, the details needed to read its numbers (in smaller print), and its cells."""

    text: str
    cells: tuple[TableCell, ...]
    detail: str = ""
    numeric: bool = True
    group: str = ""
    """Heading shared with adjacent columns, above them; empty for none."""

    def linked(self, links: Iterable[str]) -> Column:
        """Returns the column with one of these links per cell."""
        cells = (replace(cell, link=link) for cell, link in zip(self.cells, links, strict=True))
        return replace(self, cells=tuple(cells))


@dataclass(frozen=True)
class Table:
    """A table with all data needed to write it to pages, Markdown and papers; its first column names the
    rows.
    """

    caption: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    """Notes below the table, one sentence each."""
    n_dense: int = 0
    """Number of rows at the top that are the dense model's, if a paper separates them."""

    @cached_property
    def rows(self) -> tuple[tuple[TableCell, ...], ...]:
        """The cells, row by row."""
        return tuple(zip(*(column.cells for column in self.columns), strict=True))

    def noted(self, *notes: str) -> Table:
        """Returns the table with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def part(self, start: int, stop: int) -> Table:
        """Returns the table with the rows from `start` to before `stop`."""
        columns = (replace(column, cells=column.cells[start:stop]) for column in self.columns)
        return replace(self, columns=tuple(columns), n_dense=max(0, self.n_dense - start))


def words(text: str, cells: Iterable[TableCell | str], detail: str = "") -> Column:
    """Returns a column of words."""
    return replace(numbers(text, cells, detail), numeric=False)


def numbers(text: str, cells: Iterable[TableCell | str], detail: str = "") -> Column:
    """Returns a column of numbers."""
    return Column(text, tuple(TableCell(c) if isinstance(c, str) else c for c in cells), detail)


def ranking_table(ranking: Ranking) -> Table:
    """Builds the table of a ranking, dense first, then best to worst."""
    entries = ranking.with_dense
    target = target_sparsity(ranking.pattern)
    places = [f"{e.rank}. " if e.rank is not None else "" for e in entries]
    texts = [f"{visible(p.name)}\nn = {counted(p.n, 'window')}" for p in ranking.setting.protocols]
    columns = (
        words(
            "Method",
            [
                TableCell(f"{place}{e.label}", "; ".join(e.remarks), link=e.cell)
                for place, e in zip(places, entries, strict=True)
            ],
            "with its settings",
        ),
        *perplexity_columns(entries, texts),
        numbers(
            "Sparsity",
            [SHARE.value(value_of(e.record, "sparsity")) for e in entries],
            "achieved" if target is None else f"achieved\ntarget {100 * target:g}{NBSP}%",
        ),
        *cost_columns(entries, end_to_end=True),
    )
    return Table(f"{ranking.setting.model}, {pattern_name(ranking.pattern)}", columns)


def perplexity_columns(entries: Sequence[Entry], texts: Sequence[str]) -> Iterator[Column]:
    """Yields, for each text, columns of the perplexity and of its ratio to the dense model's."""
    for place, about in enumerate(texts):
        scores = [entry.scores[place] for entry in entries]
        dense = [entry.record.cell.is_dense for entry in entries]
        detail = f"{about}\n95{NBSP}% interval\nlower is better"
        yield numbers("Perplexity ↓", map(_score_cell, scores), detail)
        ratios = map(_ratio_cell, scores, dense)
        yield numbers("× dense ↓", ratios, f"same windows\npaired 95{NBSP}% interval\nlower is better")


def cost_columns(entries: Sequence[Entry], *, end_to_end: bool = False) -> Iterator[Column]:
    """Yields columns of seconds and memory of pruning; memory of an accelerator only if one was used."""
    better = "one run\nlower is better"
    took = [seconds(e.method_seconds) for e in entries]
    yield numbers("Prune time ↓", took, f"s, method phases\n{better}")
    if end_to_end:
        whole = [seconds(e.end_to_end_seconds) for e in entries]
        yield numbers("End to end ↓", whole, f"s, model loaded\n{better}")
    host = [gibibytes(e.peak_host_bytes) for e in entries]
    yield numbers("Host memory ↓", host, f"GiB, peak\n{better}")
    device = [gibibytes(e.peak_device_bytes) for e in entries]
    if set(device) - {MISSING}:
        yield numbers("Device memory ↓", device, f"GiB, peak\n{better}")


def cost_table(rankings: Sequence[Ranking]) -> Table:
    """Builds a table of seconds by phase for every cell of one setting, with the dense model once."""
    rows = [(r.pattern, e) for r in rankings for e in r.entries]
    dense = rankings[0].dense
    if dense is not None:
        rows.insert(0, (None, dense))
    entries = [entry for _, entry in rows]
    spent = [spent_by_phase(entry.record) for entry in entries]
    names = {name for phases in spent for name in phases}
    phases = [p for p in PHASES if p in names] + sorted(names - set(PHASES))
    columns = (
        words("Method", [TableCell(e.label, link=e.cell) for e in entries], "with its settings"),
        words("Pattern", [pattern_name(pattern) for pattern, _ in rows]),
        *(numbers(visible(phase), [seconds(took.get(phase)) for took in spent], "s") for phase in phases),
        numbers("All", [seconds(sum(took.values()) if took else None) for took in spent], "s"),
        numbers("End to end", [seconds(e.end_to_end_seconds) for e in entries], "s, the prune\nmodel loaded"),
        numbers(
            "× forward", [decimal(_forwards(e), 1) for e in entries], "prune time over one\ndense forward"
        ),
    )
    return Table("seconds by phase, one run each, lower is better", columns)


def frame_table(frame: pd.DataFrame, caption: str) -> Table:
    """Builds a table of a figure's data, one row per mark."""
    columns = (
        replace(
            numbers(name.replace("_", " "), map(_plain, frame[name].array)),
            numeric=pd.api.types.is_numeric_dtype(frame[name]),
        )
        for name in frame.columns
    )
    return Table(caption, tuple(columns))


def _score_cell(score: Score) -> TableCell:
    """Formats a perplexity with its interval and its mark."""
    if score.value is None:
        return TableCell(MISSING, visible(score.status))
    spread = interval(score.low, score.high)
    return TableCell(decimal(score.value), spread or f"no interval, n = {score.n}", MARKS[score.mark])


def _ratio_cell(score: Score, is_dense: bool) -> TableCell:
    """Formats the perplexity as a multiple of dense, with its paired interval."""
    if is_dense:
        return TableCell(decimal(1.0), "by definition")
    if score.to_dense is None:
        return TableCell(MISSING)
    spread = interval(score.to_dense.low, score.to_dense.high)
    return TableCell(decimal(score.to_dense.value), spread or f"no interval, n = {score.n}")


def _forwards(entry: Entry) -> float | None:
    """Returns prune time divided by the time of one dense forward over the calibration set."""
    speed, calibration = entry.record.reference_speed, entry.record.calibration
    if speed is None or calibration is None or entry.method_seconds is None:
        return None
    tokens = calibration.n_samples * calibration.seqlen
    return entry.method_seconds * speed.forward_tokens_per_second / tokens


def _plain(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return MISSING if not math.isfinite(value) else f"{value:.6g}"
    return str(value)
