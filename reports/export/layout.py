"""Cuts a table into parts that fit a two-column page, by estimated widths; columns and rows stay whole.

Widths are in points, for 8 pt text (LaTeX's `footnotesize` in a 10 pt document). They are overestimated: a
table may turn out narrower than possible, but does not exceed the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from reports.export.tex import set_length
from reports.tables import Column, Table, TableCell
from reports.wording import MISSING

COLUMN = 234.0
"""Width of one column of a two-column page: 3.25 inches."""
PAGE = 487.0
"""Width of both columns with the gap between them: 6.75 inches, rounded down."""
COLUMN_GAP = 8.0
"""Gap between two columns of a table."""
LEAST_GROUP = 48.0
"""Minimum width of a group of columns, whose heading needs room for a few characters per line."""
MOST_LINES = 44
"""Maximum number of lines in a table's body: a longer one does not fit a page with caption and notes."""

_CHARACTER = 4.2
_DIGIT, _BOLD_DIGIT = 4.3, 4.9
_SMALL_DIGIT, _BOLD_SMALL_DIGIT = 3.9, 4.4
_LEAST_STUB, _MOST_STUB = 52.0, 150.0
_LEAST_NUMBER = 26.0


@dataclass(frozen=True)
class Piece:
    """A part of a table that fits the page.

    Attributes:
        table: the columns and rows of this part; columns of words come first and name the rows.
        widths: widths of its columns in points, including the extras of numbers.
        is_wide: whether it takes both columns of the page.
        place: number of this part, from 1.
        parts: number of parts of the table.
    """

    table: Table
    widths: tuple[float, ...]
    is_wide: bool
    place: int = 1
    parts: int = 1

    @property
    def n_stubs(self) -> int:
        """Number of columns that name the rows."""
        return sum(not column.numeric for column in self.table.columns)


def fitted(table: Table) -> list[Piece]:
    """Cuts the table into parts that fit, first by columns, then by rows."""
    stubs = [column for column in table.columns if not column.numeric]
    numbers = [column for column in table.columns if column.numeric]
    stub_widths = _stub_widths(stubs, len(numbers))
    number_widths = [_number_width(column, numbers) for column in numbers]
    room = PAGE - _taken(stub_widths)
    pieces = []
    for chosen in _column_chunks(room, number_widths, numbers):
        widths = (*stub_widths, *(number_widths[i] for i in chosen))
        part = replace(table, columns=(*stubs, *(numbers[i] for i in chosen)))
        pieces += [
            Piece(part.part(start, stop), widths, is_wide=_taken(widths) > COLUMN)
            for start, stop in _row_chunks(table, stub_widths)
        ]
    return [replace(p, place=place, parts=len(pieces)) for place, p in enumerate(pieces, 1)]


def lines_of(text: str, width: float) -> int:
    """Number of lines that a text takes in a column of that width."""
    return max(1, math.ceil(_CHARACTER * set_length(text) / width))


def mantissa(cell: TableCell) -> str:
    """Returns the digits of a cell's number without its power of ten; empty if there is no number."""
    return "" if cell.text == MISSING else cell.text.partition("e")[0]


def _taken(widths: Sequence[float]) -> float:
    return sum(widths) + COLUMN_GAP * len(widths)


def _stub_widths(stubs: Sequence[Column], n_numbers: int) -> list[float]:
    wanted = []
    for i, column in enumerate(stubs):
        longest = max(len(column.text), *(set_length(cell.text) for cell in column.cells), 0)
        # The first column names the method and may wrap; the others are short (patterns, protocols) or wrap
        # too.
        least, most = (_LEAST_STUB, _MOST_STUB) if i == 0 else (24.0, 90.0)
        wanted.append(min(most, max(least, _CHARACTER * longest)))
    if n_numbers * 60.0 + wanted[0] + COLUMN_GAP > COLUMN > n_numbers * 60.0 + 88.0:
        wanted[0] = min(wanted[0], 88.0)  # two patterns fit one column if names wrap a little sooner
    return wanted


def _number_width(column: Column, columns: Sequence[Column]) -> float:
    cells = column.cells
    parts = [mantissa(cell).partition(".") for cell in cells]
    whole = max((len(before) for before, _, _ in parts), default=0)
    places = max((len(point + after) for _, point, after in parts), default=0)
    powers = 4 if any("e" in cell.text for cell in cells) else 0
    aside = max((_aside(cell) for cell in cells), default=0.0)
    digit = _BOLD_DIGIT if any(cell.mark for cell in cells) else _DIGIT
    number = digit * (whole + places + powers) + aside
    is_alone = column.group and sum(other.group == column.group for other in columns) == 1
    least = LEAST_GROUP if is_alone else _LEAST_NUMBER
    return max(least, number, _CHARACTER * set_length(column.text) + 2.0)


def _aside(cell: TableCell) -> float:
    """Width of what is to the right of the number: its error, a footnote's letter, a citation."""
    digit = _BOLD_SMALL_DIGIT if cell.mark else _SMALL_DIGIT
    width = digit * len(cell.error) + 7.0 if cell.error else 0.0
    return width + (6.0 if cell.detail else 0.0) + (22.0 if cell.link else 0.0)


def _column_chunks(room: float, widths: Sequence[float], columns: Sequence[Column]) -> Iterator[list[int]]:
    """Yields adjacent columns that fit the page together; a group is cut only if necessary."""
    chunk: list[int] = []
    used = 0.0
    for _, group in groupby(range(len(columns)), key=lambda i: columns[i].group):
        places = list(group)
        wide = _taken([widths[i] for i in places])
        if chunk and used + wide > room:
            yield chunk
            chunk, used = [], 0.0
        for i in places:
            if chunk and used + widths[i] + COLUMN_GAP > room:
                yield chunk
                chunk, used = [], 0.0
            chunk.append(i)
            used += widths[i] + COLUMN_GAP
    if chunk:
        yield chunk


def _row_chunks(table: Table, widths: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yields the first row and the row after the last of each part."""
    start, lines = 0, 0
    for place, row in enumerate(table.rows):
        stubs, numbers = row[: len(widths)], row[len(widths) :]
        tall = max(lines_of(stub.text, width) for stub, width in zip(stubs, widths, strict=True))
        # Footnotes take lines of their own below the table.
        tall += sum(bool(cell.detail) for cell in numbers) // 2 + len(stubs[0].detail.splitlines())
        if place > start and lines + tall > MOST_LINES:
            yield start, place
            start, lines = place, 0
        lines += tall
    yield start, len(table.rows)
