"""A table of a paper as plain data: what stands in it, nothing about how it is typeset."""

from __future__ import annotations

from dataclasses import dataclass

from reports.export.paper.quantity import Quantity


@dataclass(frozen=True)
class PaperCell:
    """One number of a table, or why there is none.

    Attributes:
        quantity: None where it could not be had, or does not apply.
        is_best: the best of its column, or not to be told from it.
        note: what a footnote says about it; empty for none.
        cites: the key of the paper it is taken from; empty for a number of ours.
    """

    quantity: Quantity | None
    is_best: bool = False
    note: str = ""
    cites: str = ""


@dataclass(frozen=True)
class PaperColumn:
    """What a column of numbers is.

    Attributes:
        heading: a pattern, a unit.
        group: what several neighbouring columns share, above them; empty for none.
    """

    heading: str
    group: str = ""


@dataclass(frozen=True)
class PaperRow:
    """One row.

    Attributes:
        stubs: the texts that name it, one a stub heading.
        cells: one a column.
        is_dense: whether it is the reference, which is set apart.
        notes: what footnotes say about the row as a whole.
    """

    stubs: tuple[str, ...]
    cells: tuple[PaperCell, ...]
    is_dense: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table.

    Attributes:
        name: for file and label; not yet fit for either.
        caption: what is shown, and which way is better.
        stubs: the headings of the columns that name rows.
        columns: those of numbers.
        rows: the dense one first.
        notes: protocol, n, calibration and how to read the marks, a sentence each.
    """

    name: str
    caption: str
    stubs: tuple[str, ...]
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...] = ()
