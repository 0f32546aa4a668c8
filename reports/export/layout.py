"""How a table is cut so that it fits a two-column page: estimated widths, whole columns and rows.

Widths are in points, for 8 pt text (LaTeX's `footnotesize` in a 10 pt document). They are estimated on the
wide side: the cost is a table that could have been a little wider, not one that sticks out.
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
"""A column of a two-column page: 3.25 inches."""
PAGE = 487.0
"""Both, with the gap between them: 6.75 inches, rounded down."""
COLUMN_GAP = 8.0
"""Between two columns of a table."""
LEAST_GROUP = 48.0
"""Of a group of columns, whose heading must have room for a few characters in a row."""
MOST_LINES = 44
"""Of a table's body: a longer one does not fit a page with its caption and notes."""

_CHARACTER = 4.2
_DIGIT, _BOLD_DIGIT = 4.3, 4.9
_SMALL_DIGIT, _BOLD_SMALL_DIGIT = 3.9, 4.4
_LEAST_STUB, _MOST_STUB = 52.0, 150.0
_LEAST_NUMBER = 26.0


@dataclass(frozen=True)
class Piece:
    """A part of a table that fits the page.

    Attributes:
        table: the columns and rows of this part; those of words come first and name the rows.
        widths: of its columns, in points; what qualifies numbers is included.
        is_wide: whether it takes both columns of the page.
        place: which part it is, from 1.
        parts: how many there are.
    """

    table: Table
    widths: tuple[float, ...]
    is_wide: bool
    place: int = 1
    parts: int = 1

    @property
    def n_stubs(self) -> int:
        """How many columns name rows."""
        return sum(not column.numeric for column in self.table.columns)


def fitted(table: Table) -> list[Piece]:
    """The table as parts that fit, columns first, then rows."""
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
    """How many lines a text takes in a column that wide."""
    return max(1, math.ceil(_CHARACTER * set_length(text) / width))


def mantissa(cell: TableCell) -> str:
    """The digits of a cell's number without its power of ten; empty where there is none."""
    return "" if cell.text == MISSING else cell.text.partition("e")[0]


def _taken(widths: Sequence[float]) -> float:
    return sum(widths) + COLUMN_GAP * len(widths)


def _stub_widths(stubs: Sequence[Column], n_numbers: int) -> list[float]:
    wanted = []
    for i, column in enumerate(stubs):
        longest = max(len(column.text), *(set_length(cell.text) for cell in column.cells), 0)
        # The first names the method and may wrap; patterns and protocols beside it are short, or wrap too.
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
    """What stands right of the number: its error, a footnote's letter, a citation."""
    digit = _BOLD_SMALL_DIGIT if cell.mark else _SMALL_DIGIT
    width = digit * len(cell.error) + 7.0 if cell.error else 0.0
    return width + (6.0 if cell.detail else 0.0) + (22.0 if cell.link else 0.0)


def _column_chunks(room: float, widths: Sequence[float], columns: Sequence[Column]) -> Iterator[list[int]]:
    """Neighbouring columns that fit the page together; a group is cut only if it must be."""
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
    """First row and the one after the last of each part."""
    start, lines = 0, 0
    for place, row in enumerate(table.rows):
        stubs, numbers = row[: len(widths)], row[len(widths) :]
        tall = max(lines_of(stub.text, width) for stub, width in zip(stubs, widths, strict=True))
        # Footnotes take lines of their own beneath.
        tall += sum(bool(cell.detail) for cell in numbers) // 2 + len(stubs[0].detail.splitlines())
        if place > start and lines + tall > MOST_LINES:
            yield start, place
            start, lines = place, 0
        lines += tall
    yield start, len(table.rows)
