"""How a table is cut so that it fits a two-column page: estimated widths, whole columns and rows.

Widths are in points, for 8 pt text (LaTeX's `footnotesize` in a 10 pt document). They are estimated on the
wide side: the cost is a table that could have been a little wider, not one that sticks out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reports.export.paper.paper_table import PaperCell, PaperColumn, PaperRow, PaperTable
from reports.export.tex import set_length

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
        table: the columns and rows of this part.
        stub_widths: of the columns that name rows, in points.
        number_widths: of the columns of numbers, what qualifies them included.
        is_wide: whether it takes both columns of the page.
        place: which part it is, from 1.
        parts: how many there are.
    """

    table: PaperTable
    stub_widths: tuple[float, ...]
    number_widths: tuple[float, ...]
    is_wide: bool
    place: int = 1
    parts: int = 1


def fitted(table: PaperTable) -> list[Piece]:
    """The table as parts that fit, columns first, then rows."""
    stubs = _stub_widths(table)
    numbers = [_number_width(table, i) for i in range(len(table.columns))]
    pieces = []
    for chosen in _column_chunks(sum(stubs) + COLUMN_GAP * len(stubs), numbers, table.columns):
        columns = tuple(table.columns[i] for i in chosen)
        widths = tuple(numbers[i] for i in chosen)
        taken = sum(stubs) + sum(widths) + COLUMN_GAP * (len(stubs) + len(widths))
        for rows in _row_chunks(table, stubs):
            cut = tuple(replace(row, cells=tuple(row.cells[i] for i in chosen)) for row in rows)
            part = replace(table, columns=columns, rows=cut)
            pieces.append(Piece(part, stubs, widths, is_wide=taken > COLUMN))
    return [replace(p, place=place, parts=len(pieces)) for place, p in enumerate(pieces, 1)]


def lines_of(text: str, width: float) -> int:
    """How many lines a text takes in a column that wide."""
    return max(1, math.ceil(_CHARACTER * set_length(text) / width))


def _stub_widths(table: PaperTable) -> tuple[float, ...]:
    longest = [
        max(len(heading), *(set_length(row.stubs[i]) for row in table.rows), 0)
        for i, heading in enumerate(table.stubs)
    ]
    # The first one names the method and may wrap; patterns and protocols beside it are short, or wrap too.
    most = [_MOST_STUB if i == 0 else 90.0 for i in range(len(longest))]
    least = [_LEAST_STUB if i == 0 else 24.0 for i in range(len(longest))]
    wanted = [min(m, max(low, _CHARACTER * n)) for n, m, low in zip(longest, most, least, strict=True)]
    if len(table.columns) * 60.0 + wanted[0] + COLUMN_GAP > COLUMN > len(table.columns) * 60.0 + 88.0:
        wanted[0] = min(wanted[0], 88.0)  # two patterns fit one column if names wrap a little sooner
    return tuple(wanted)


def _number_width(table: PaperTable, i: int) -> float:
    cells = [row.cells[i] for row in table.rows]
    whole = max((len(_whole(cell)) for cell in cells), default=0)
    places = max((len(_places(cell)) for cell in cells), default=0)
    powers = max((4 if c.quantity and c.quantity.exponent else 0 for c in cells), default=0)
    aside = max((_aside(cell) for cell in cells), default=0.0)
    digit = _BOLD_DIGIT if any(cell.is_best for cell in cells) else _DIGIT
    number = digit * (whole + places + powers) + aside
    group = table.columns[i].group
    is_alone = group and sum(column.group == group for column in table.columns) == 1
    least = LEAST_GROUP if is_alone else _LEAST_NUMBER
    return max(least, number, _CHARACTER * set_length(table.columns[i].heading) + 2.0)


def _whole(cell: PaperCell) -> str:
    return "" if cell.quantity is None else cell.quantity.mantissa.partition(".")[0]


def _places(cell: PaperCell) -> str:
    return "" if cell.quantity is None else "".join(cell.quantity.mantissa.partition(".")[1:])


def _aside(cell: PaperCell) -> float:
    """What stands right of the number: its error, a footnote's letter, a citation."""
    error = cell.quantity.error if cell.quantity else ""
    digit = _BOLD_SMALL_DIGIT if cell.is_best else _SMALL_DIGIT
    width = digit * len(error) + 7.0 if error else 0.0
    return width + (6.0 if cell.note else 0.0) + (22.0 if cell.cites else 0.0)


def _column_chunks(
    taken: float, numbers: Sequence[float], columns: Sequence[PaperColumn]
) -> Iterator[list[int]]:
    """Neighbouring columns that fit the page together; a group is cut only if it must be."""
    room = PAGE - taken
    groups: list[list[int]] = []
    for i, column in enumerate(columns):
        if groups and columns[groups[-1][-1]].group == column.group:
            groups[-1].append(i)
        else:
            groups.append([i])
    chunk: list[int] = []
    used = 0.0
    for group in groups:
        wide = sum(numbers[i] + COLUMN_GAP for i in group)
        if chunk and used + wide > room:
            yield chunk
            chunk, used = [], 0.0
        for i in group:
            if chunk and used + numbers[i] + COLUMN_GAP > room:
                yield chunk
                chunk, used = [], 0.0
            chunk.append(i)
            used += numbers[i] + COLUMN_GAP
    if chunk:
        yield chunk


def _row_chunks(table: PaperTable, widths: Sequence[float]) -> Iterator[tuple[PaperRow, ...]]:
    chunk: list[PaperRow] = []
    lines = 0
    for row in table.rows:
        tall = max(lines_of(stub, width) for stub, width in zip(row.stubs, widths, strict=True))
        # Footnotes take lines of their own beneath.
        tall += sum(bool(cell.note) for cell in row.cells) // 2 + len(row.notes)
        if chunk and lines + tall > MOST_LINES:
            yield tuple(chunk)
            chunk, lines = [], 0
        chunk.append(row)
        lines += tall
    yield tuple(chunk)
