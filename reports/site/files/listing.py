"""Pages that consist of tables, split into several pages if there are many rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from reports.site.files.links import further_page
from reports.tables import Column, Table

PAGE_ROWS = 200
"""Maximum number of rows on one page, which keeps pages small for browsers and readers."""


@dataclass(frozen=True)
class Block:
    """A table with its heading and a link to its remaining rows.

    Attributes:
        heading: heading of the table.
        table: the table, whose cells link to paths below the site's root.
        more: path below the root and text of a link to the rest.
        kind: CSS classes of the table.
    """

    heading: str
    table: Table
    more: tuple[str, str] | None = None
    kind: str = "ranking"


def block(heading: str, columns: Iterable[Column], notes: tuple[str, ...] = (), **more: Any) -> Block:
    """Returns a block whose table has the heading as its caption."""
    return Block(heading, Table(heading, tuple(columns), notes), **more)


@dataclass(frozen=True)
class Listing:
    """A page before it is split.

    Attributes:
        path: path of its first page, below the root.
        title: its heading.
        section: the navigation entry that it belongs to.
        intro: paragraphs above all tables.
        facts: pairs of name and value, above all tables.
        blocks: the tables.
    """

    path: str
    title: str
    section: str
    intro: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class ListingPage:
    """One page of a listing.

    Attributes:
        path: its path below the root.
        number: number of the page, from 1.
        listing: the listing that it is a page of.
        blocks: the blocks on it, or parts of them.
        paths: paths of all pages of the listing.
    """

    path: str
    number: int
    listing: Listing
    blocks: tuple[Block, ...]
    paths: tuple[str, ...] = field(default=())


def cut(listing: Listing, rows: int = PAGE_ROWS) -> list[ListingPage]:
    """Splits a listing into pages with at most `rows` rows each."""
    pages: list[list[Block]] = [[]]
    room = rows
    for block in listing.blocks:
        table = block.table
        if not table.rows:
            pages[-1].append(block)
            continue
        start = 0
        while start < len(table.rows):
            # A table that fits on one page is not split; a table that is split begins on a new page.
            if room <= 0 or (room < rows and len(table.rows) - start > room):
                pages.append([])
                room = rows
            taken = min(room, len(table.rows) - start)
            pages[-1].append(_part(block, start, taken))
            start, room = start + taken, room - taken
    paths = tuple(further_page(listing.path, number) for number in range(1, len(pages) + 1))
    return [
        ListingPage(path, number, listing, tuple(blocks), paths)
        for number, (path, blocks) in enumerate(zip(paths, pages, strict=True), 1)
    ]


def numbered(title: str, number: int) -> str:
    """Returns the title of a page, with the page number if it is not the first."""
    return title if number == 1 else f"{title}, page {number}"


def _part(block: Block, start: int, taken: int) -> Block:
    n = len(block.table.rows)
    if taken == n:
        return block
    span = f"{block.heading}, rows {start + 1:,} to {start + taken:,} of {n:,}"
    table = replace(block.table.part(start, start + taken), caption=span)
    return replace(block, heading=span, table=table)


def first_rows(block: Block, rows: int, more: tuple[str, str]) -> Block:
    """Returns a block with its first rows only, and a link to the rest."""
    return replace(block, table=block.table.part(0, rows), more=more)
