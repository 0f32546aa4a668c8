"""The first page: which method keeps most, its cost, its trust, and links to the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.site.boards.board import Board, Boards, Entrant, protocol_of
from reports.site.boards.board_tables import RULE, TIES, board_block
from reports.site.boards.cost import Cost, cost_of, machines_of
from reports.site.files.links import board_page, method_page
from reports.site.files.listing import Block, block, first_rows
from reports.site.pages.record_tables import records_block
from reports.site.records.site_record import Holdings, SiteRecord
from reports.site.records.trust import TRUST_WORDS, Trust
from reports.tables import TableCell, numbers, words
from reports.wording import (
    NBSP,
    counted,
    decimal,
    gibibytes,
    interval,
    listed,
    pattern_name,
    seconds,
    visible,
)

BOARD_ROWS = 25
"""Maximum number of rows of the first board and of the list of boards, on the first page."""
BOARDS = "boards/index.html"
NEWEST = 10
"""Number of records on the first page."""
TIES_NAMED = 3


@dataclass(frozen=True)
class Overview:
    """The first page.

    Attributes:
        answers: pairs of a reader's question and its answer; the last one is about trust.
        board: the board of the most common pattern; None if nothing is ranked.
        others: a table with one row per board.
        newest: the latest results.
        rule: how boards are ranked.
    """

    answers: tuple[tuple[str, str], ...]
    board: Block | None
    others: Block | None
    newest: Block | None
    rule: tuple[str, ...]


def overview(holdings: Holdings, boards: Boards) -> Overview:
    """Builds the first page."""
    first = boards.boards[0] if boards.boards else None
    board = None
    if first is not None:
        board = first_rows(board_block(first), BOARD_ROWS, (board_page(first.key.name), "The whole board"))
    newest = records_block("Newest results", [held for held in holdings.records if held.is_ranked][:NEWEST])
    return Overview(
        answers=tuple(_answers(holdings, first)),
        board=board,
        others=_others(boards),
        newest=newest if newest.table.rows else None,
        rule=(RULE, TIES),
    )


def boards_block(boards: Sequence[Board]) -> Block:
    """Builds a table with one row per board and its best method."""
    best = [b.entrants[0] for b in boards]
    spreads = [interval(e.low, e.high, 3) or "no interval" for e in best]
    columns = (
        words("Board", [TableCell(pattern_name(b.key.pattern), link=board_page(b.key.name)) for b in boards]),
        words(
            "Protocol",
            [TableCell(protocol_of(b.key), f"revision {visible(b.key.corpus_revision)}") for b in boards],
        ),
        numbers("Models", [f"{b.n_models:,}" for b in boards]),
        numbers("Methods", [f"{len(b.entrants):,}" for b in boards]),
        numbers("Records", [f"{b.n_records:,}" for b in boards]),
        words("First", [TableCell(e.label, link=method_page(e.method)) for e in best]),
        numbers(
            "Recovery ↑",
            [TableCell(decimal(e.score, 3), spread) for e, spread in zip(best, spreads, strict=True)],
            "95\u00a0% interval\nhigher is better",
        ),
    )
    return block("All boards", columns)


def leader(board: Board) -> str:
    """Names the best method of a board, and those that the windows do not distinguish from it."""
    best = board.entrants[0]
    tied = [entrant.label for entrant in board.entrants if entrant.mark == "tied"]
    share = f", tied with {listed(tied[:TIES_NAMED])}" if tied else ""
    share += f" and {len(tied) - TIES_NAMED} more" if len(tied) > TIES_NAMED else ""
    spread = interval(best.low, best.high, 3)
    protocol = f"on {visible(board.key.protocol)}"
    details = f" (95{NBSP}% interval {spread}, {protocol})" if spread else f" ({protocol}, no interval)"
    return (
        f"At {pattern_name(board.key.pattern)}, {best.label} keeps most: recovery "
        f"{decimal(best.score, 3)}{details}, the mean over {counted(board.n_models, 'model')}{share}. "
        "1 is as good as dense."
    )


def told(records: Sequence[SiteRecord]) -> str:
    """States the number of records, and how many of each level of trust there are."""
    return f"{counted(len(records), 'record')}: {kinds(records)}"


def kinds(records: Iterable[SiteRecord]) -> str:
    """Counts records by level of trust: `3 verified, 1 rerun and 1 failed.`"""
    found = sorted(_counted(records).items(), key=lambda one: (-one[1], one[0]))
    return f"{listed([f'{n:,} {kind}' for kind, n in found]) or 'none'}."


def _answers(holdings: Holdings, board: Board | None) -> list[tuple[str, str]]:
    if board is None:
        none = "Nothing is ranked." if holdings.records else "There are no records."
        return [("Which method?", none), ("Can it be trusted?", _trust(holdings))]
    return [
        ("Which method?", leader(board)),
        ("What does it cost?", _cost(board)),
        ("Can it be trusted?", _trust(holdings)),
    ]


def _cost(board: Board) -> str:
    """States the cost of the best method, and the fastest method measured on the same models and machine."""
    best = board.entrants[0]
    parts = [_spent(best, cost_of(best.records))]
    comparable = [entrant for entrant in board.entrants if entrant.results.keys() == best.results.keys()]
    machines = machines_of(held for entrant in comparable for held in entrant.records)
    if len(machines) > 1:
        parts.append(f"Times of {len(machines)} kinds of machine are not comparable.")
        return " ".join(parts)
    costs = [(cost_of(entrant.records).seconds, entrant) for entrant in comparable]
    timed = [(spread.middle, entrant) for spread, entrant in costs if spread is not None]
    fastest = min(timed, key=lambda one: one[0], default=None)
    if fastest is not None and fastest[1] is not best:
        took, entrant = fastest
        parts.append(
            f"The fastest, {entrant.label}, takes {seconds(took)}{NBSP}s "
            f"and keeps {decimal(entrant.score, 3)}."
        )
    return " ".join(parts)


def _spent(entrant: Entrant, cost: Cost) -> str:
    if cost.seconds is None:
        return f"The records of {entrant.label} do not contain its cost."
    memory = f", {gibibytes(cost.host_bytes.middle)}{NBSP}GiB of host memory" if cost.host_bytes else ""
    if cost.device_bytes:
        memory += f", {gibibytes(cost.device_bytes.middle)}{NBSP}GiB of device memory"
    runs = counted(cost.seconds.n, "run")
    return (
        f"{entrant.label} prunes a model in {seconds(cost.seconds.middle)}{NBSP}s{memory} "
        f"({'one run' if cost.seconds.n == 1 else f'median of {runs}'})."
    )


def _trust(holdings: Holdings) -> str:
    """Counts the records of each level of trust, and explains the levels."""
    unreadable = len(holdings.unreadable)
    broken = f" {counted(unreadable, 'file')} cannot be read." if unreadable else ""
    found = _counted(holdings.records)
    ranked: tuple[Trust, ...] = ("rerun", "verified")
    meaning = " ".join(f"{word.capitalize()}: {TRUST_WORDS[word]}." for word in ranked if found[word])
    return f"{told(holdings.records)}{broken} {meaning}".strip()


def _counted(records: Iterable[SiteRecord]) -> Counter[str]:
    return Counter("failed" if h.record.status == "failed" else h.trust for h in records)


def _others(boards: Boards) -> Block | None:
    """Returns the boards for the first page: all, or the most common ones with a link to the others."""
    if not boards.boards:
        return None
    found = boards_block(boards.boards)
    if len(boards.boards) <= BOARD_ROWS:
        return found
    return first_rows(found, BOARD_ROWS, (BOARDS, f"All {len(boards.boards):,} boards"))
