"""Pages made of tables, cut into several where there are many rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from reports.site.files.links import further_page
from reports.tables import Column, Table

PAGE_ROWS = 200
"""Rows on one page: it stays small, and a browser and a reader keep up."""


@dataclass(frozen=True)
class Block:
    """A table with what stands above and beneath it, its notes aside.

    Attributes:
        heading: of the table.
        table: whose cells link to paths below the site's root.
        more: (path below the root, words) of where the rest stands.
        kind: the style of the table.
    """

    heading: str
    table: Table
    more: tuple[str, str] | None = None
    kind: str = "ranking"


def block(heading: str, columns: Iterable[Column], notes: tuple[str, ...] = (), **more: Any) -> Block:
    """A block whose table has its heading's name."""
    return Block(heading, Table(heading, tuple(columns), notes), **more)


@dataclass(frozen=True)
class Listing:
    """A page before it is cut.

    Attributes:
        path: of its first page, below the root.
        title: its heading.
        section: the entry of the navigation that it belongs to.
        intro: paragraphs above all tables.
        facts: (name, value), above all tables.
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
        path: below the root.
        number: 1 is the first.
        listing: what it is a page of.
        blocks: those on it, or parts of them.
        paths: of all pages.
    """

    path: str
    number: int
    listing: Listing
    blocks: tuple[Block, ...]
    paths: tuple[str, ...] = field(default=())


def cut(listing: Listing, rows: int = PAGE_ROWS) -> list[ListingPage]:
    """The pages of a listing, each with at most so many rows."""
    pages: list[list[Block]] = [[]]
    room = rows
    for block in listing.blocks:
        table = block.table
        if not table.rows:
            pages[-1].append(block)
            continue
        start = 0
        while start < len(table.rows):
            # A table that fits on a page is not torn, and one that is torn begins at a page's top.
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
    """The title of a page, which says which of several it is."""
    return title if number == 1 else f"{title}, page {number}"


def _part(block: Block, start: int, taken: int) -> Block:
    n = len(block.table.rows)
    if taken == n:
        return block
    span = f"{block.heading}, rows {start + 1:,} to {start + taken:,} of {n:,}"
    table = replace(block.table.part(start, start + taken), caption=span)
    return replace(block, heading=span, table=table)


def first_rows(block: Block, rows: int, more: tuple[str, str]) -> Block:
    """A block with its first rows only, and where the rest stands."""
    return replace(block, table=block.table.part(0, rows), more=more)
