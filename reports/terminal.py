"""Records in a terminal: a line of main numbers per cell, and the ranked table of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from reports.accuracy import mean_accuracy, questions_of
from reports.page.board import Board, boards
from reports.rankings.comparison import compare
from reports.rankings.ranking import method_seconds
from reports.tables import TableCell
from reports.wording import SHARE, counted, decimal, seconds
from suite.results.records.record import Record

MOST_ROWS = 40
"""Maximum number of rows of a table; the report has the others."""
MARKS = {"best": "best", "tied with best": "tied", "lowest": "lowest"}
"""Marks of the tables, as written after a number."""
_SHOWN = ("Method", "Model", "Perplexity", "× dense", "Accuracy", "Prune time")


def main_numbers(record: Record) -> str:
    """Formats the measured ones of `perplexity 47.99, accuracy 57.33 %, pruned in 15.1 s`.

    The perplexity is that of the first text, the accuracy is the mean over all tasks, and the seconds are
    those of the method's own phases, as in the report's ranked table.
    """
    parts = []
    perplexity = next((metric for metric in record.metrics if metric.name == "perplexity"), None)
    if perplexity is not None:
        parts.append(f"perplexity {decimal(perplexity.value)}")
    accuracy = mean_accuracy(record, questions_of(record))
    if accuracy is not None:
        parts.append(f"accuracy {SHARE.value(accuracy.value)}")
    took = method_seconds(record)
    if took is not None:
        parts.append(f"pruned in {seconds(took)} s")
    return ", ".join(parts)


def ranked_tables(records: Sequence[Record]) -> Iterator[Table | Text]:
    """Yields the ranked tables of a report for `rich`: best first, the best in bold, ties marked.

    Args:
        records: complete and failed ones; at least one.
    """
    comparison = compare(records)
    n_left_out = 0
    for board in boards(comparison.rankings):
        yield _table(board)
        n_left_out += max(0, len(board.rows) - MOST_ROWS)
    notes = ["tied: the paired 95 % interval of the difference from the best of its pattern includes 0."]
    if n_left_out:
        notes.append(f"{counted(n_left_out, 'further row')} in the report.")
    if comparison.rankings:
        yield Text(" ".join(notes), style="dim")


def _table(board: Board) -> Table:
    many = len(board.patterns) > 1
    names = (*_SHOWN, "Pattern") if many else _SHOWN
    places = [place for place, heading in enumerate(board.table.columns) if heading.text.startswith(names)]
    title = board.title if many or not board.patterns else f"{board.patterns[0]}, {board.title}"
    shown = Table(title=title, title_justify="left", pad_edge=False, box=None, header_style="dim")
    for place in places:
        heading = board.table.columns[place]
        name = "Prune s ↓" if heading.text.startswith("Prune time") else heading.text
        shown.add_column(name, justify="right" if heading.numeric else "left", overflow="fold")
    for row, cells in zip(board.rows[:MOST_ROWS], board.table.rows, strict=False):
        if row.starts and shown.rows:
            shown.add_row()
        shown.add_row(*(_cell(cells[place], row.rank if place == 0 else None) for place in places))
    return shown


def _cell(cell: TableCell, rank: int | None) -> Text:
    """Formats a number with its mark, in bold if it is best."""
    mark = MARKS.get(cell.mark, "")
    text = f"{'' if rank is None else f'{rank}. '}{cell.text}{f' {mark}' if mark else ''}"
    return Text(text, style="bold" if mark in ("best", "lowest") else "")


__all__ = ["main_numbers", "ranked_tables"]
