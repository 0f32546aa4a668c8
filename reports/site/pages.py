"""Which pages there are besides those of single records, and what stands on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from reports.site.board import Board, Boards, protocol_of
from reports.site.board_tables import RULE, TIES, board_block, method_block
from reports.site.holdings import Held, Holdings
from reports.site.links import board_page, method_page, model_page
from reports.site.listing import Block, Listing, first_rows
from reports.site.record_tables import (
    left_out_rows,
    model_blocks,
    reasons_block,
    records_block,
    set_apart_reason,
    unreadable_block,
)
from reports.site.trust import TRUST_WORDS
from reports.tables import Heading, Table, TableCell
from reports.wording import counted, decimal, listed, pattern_name, visible

BOARD_ROWS = 25
"""Of the first board and of the list of boards, on the first page."""
BOARDS = "boards/index.html"
NEWEST = 10
"""Records on the first page."""


@dataclass(frozen=True)
class Overview:
    """The first page.

    Attributes:
        answer: what is known, in a sentence or two.
        counts: how many records of which kind.
        board: the board of the commonest pattern; None where nothing is ranked.
        others: a row a board.
        newest: the latest results.
        rule: how boards are ranked.
    """

    answer: str
    counts: str
    board: Block | None
    others: Block | None
    newest: Block | None
    rule: tuple[str, ...]


def overview(holdings: Holdings, boards: Boards) -> Overview:
    """The first page."""
    first = boards.boards[0] if boards.boards else None
    board = None
    if first is not None:
        board = first_rows(board_block(first), BOARD_ROWS, (board_page(first.key.name), "The whole board"))
    newest = records_block("Newest results", [held for held in holdings.records if held.is_ranked][:NEWEST])
    return Overview(
        answer=_answer(holdings, boards),
        counts=_counts(holdings),
        board=board,
        others=_others(boards),
        newest=newest if newest.table is not None and newest.table.rows else None,
        rule=(RULE, TIES),
    )


def listings(holdings: Holdings, boards: Boards) -> Iterator[Listing]:
    """All pages that are made of tables."""
    for board in boards.boards:
        yield Listing(
            board_page(board.key.name),
            f"{pattern_name(board.key.pattern)}: {protocol_of(board.key)}",
            "boards",
            (_leader(board), RULE, TIES),
            blocks=(replace(board_block(board), heading="Ranking"),),
        )
    yield Listing(
        BOARDS,
        "Boards",
        "boards",
        () if boards.boards else ("There are no boards yet.",),
        blocks=(_boards_block(boards.boards),) if boards.boards else (),
    )
    models = _grouped(holdings.records, lambda held: held.record.cell.model)
    for name, records in models.items():
        yield _model(name, records)
    yield _index("models", "Models", [(name, model_page(name), found) for name, found in models.items()])
    pruned = [held for held in holdings.records if not held.record.cell.is_dense]
    methods = _grouped(pruned, lambda held: held.record.cell.method)
    for name, records in methods.items():
        yield _method(name, records, boards.boards)
    yield _index("methods", "Methods", [(name, method_page(name), found) for name, found in methods.items()])
    block = records_block("All records", holdings.records)
    intro = () if holdings.records else ("There are no records.",)
    yield Listing(
        "records/index.html",
        "Records",
        "records",
        (*intro, *_trust_legend(), "Newest first."),
        blocks=(block,) if holdings.records else (),
    )
    yield _not_ranked(holdings, boards)


def _model(name: str, records: Sequence[Held]) -> Listing:
    ranked = [held for held in records if held.is_ranked]
    notes, blocks = model_blocks(ranked)
    apart = [(held, set_apart_reason(held)) for held in records if not held.is_ranked]
    if apart:
        blocks = [*blocks, reasons_block("Failed or set apart", apart)]
    older = len(ranked) - len({held.record.cell.digest for held in ranked})
    if older:
        blocks = [*blocks, records_block("All ranked records, older ones of the same cell too", ranked)]
    identity = next((held.record.model for held in records if held.record.model is not None), None)
    facts = []
    if identity is not None:
        facts = [
            ("architecture", visible(identity.architecture)),
            ("parameters", f"{identity.n_parameters:,}"),
            ("weight digests", str(len({h.record.model.weight_digest for h in records if h.record.model}))),
        ]
    empty = () if ranked else ("No record of this model can be ranked; the reasons stand below.",)
    return Listing(
        model_page(name),
        visible(name),
        "models",
        (_told(records), *empty, *notes),
        tuple(facts),
        tuple(blocks),
    )


def _method(name: str, records: Sequence[Held], boards: Sequence[Board]) -> Listing:
    own = [board for board in boards if any(entrant.method == name for entrant in board.entrants)]
    blocks = [method_block(board, name) for board in own]
    intro = [_told(records)]
    if not own:
        intro.append("No record of this method stands on a board.")
    return Listing(
        method_page(name),
        visible(name),
        "methods",
        tuple(intro),
        blocks=(*blocks, records_block("All its records", records)),
    )


def _not_ranked(holdings: Holdings, boards: Boards) -> Listing:
    def rows(held: Iterable[Held]) -> list[tuple[Held, str]]:
        return [(one, set_apart_reason(one)) for one in held]

    failed = [held for held in holdings.records if held.record.status == "failed"]
    apart = [held for held in holdings.records if not held.is_ranked and held.record.status != "failed"]
    inconsistent = rows(held for held in apart if held.trust == "inconsistent")
    different = rows(held for held in apart if held.trust == "different")
    blocks = [
        reasons_block(heading, found)
        for heading, found in (
            ("Inconsistent", inconsistent),
            ("Came out otherwise when run again", different),
            ("On no board", left_out_rows(boards.left_out)),
            ("Failed", rows(failed)),
        )
        if found
    ]
    if holdings.unreadable:
        blocks.append(unreadable_block("Not readable", holdings.unreadable))
    intro = "What was handed in and is on no board, with the reason. Nothing is left out in silence."
    return Listing(
        "not-ranked.html",
        "Not ranked",
        "not-ranked",
        (
            intro
            if blocks
            else "Every record stands on a board, or is a dense one that others are held against.",
        ),
        blocks=tuple(blocks),
    )


def _index(section: str, title: str, entries: Sequence[tuple[str, str, Sequence[Held]]]) -> Listing:
    headings = (
        Heading(title.removesuffix("s"), numeric=False),
        Heading("Records"),
        Heading("Patterns", numeric=False),
        Heading("Trust", numeric=False),
    )
    rows = tuple(
        (
            TableCell(visible(name), link=path),
            TableCell(f"{len(records):,}"),
            TableCell(_patterns(records)),
            TableCell(_kinds(records).rstrip(".")),
        )
        for name, path, records in sorted(entries)
    )
    none = () if rows else (f"There are no {section} yet.",)
    blocks = (Block(f"All {section}", Table(f"All {section}", headings, rows)),) if rows else ()
    return Listing(f"{section}/index.html", title, section, none, blocks=blocks)


def _boards_block(boards: Sequence[Board]) -> Block:
    headings = (
        Heading("Board", numeric=False),
        Heading("Protocol", numeric=False),
        Heading("Models"),
        Heading("Methods"),
        Heading("Records"),
        Heading("First", numeric=False),
        Heading("Recovery ↑", "higher is better"),
    )
    rows = tuple(
        (
            TableCell(pattern_name(b.key.pattern), link=board_page(b.key.name)),
            TableCell(protocol_of(b.key), f"revision {visible(b.key.corpus_revision)}"),
            TableCell(f"{b.n_models:,}"),
            TableCell(f"{len(b.entrants):,}"),
            TableCell(f"{b.n_records:,}"),
            TableCell(b.entrants[0].label, link=method_page(b.entrants[0].method)),
            TableCell(decimal(b.entrants[0].score, 3)),
        )
        for b in boards
    )
    return Block("All boards", Table("All boards", headings, rows))


def _others(boards: Boards) -> Block | None:
    """The boards on the first page: all of them, or the commonest and where the others are."""
    if not boards.boards:
        return None
    block = _boards_block(boards.boards)
    if len(boards.boards) <= BOARD_ROWS:
        return block
    return first_rows(block, BOARD_ROWS, (BOARDS, f"All {len(boards.boards):,} boards"))


def _answer(holdings: Holdings, boards: Boards) -> str:
    if boards.boards:
        return _leader(boards.boards[0])
    if not holdings.records:
        broken = counted(len(holdings.unreadable), "file")
        return f"There are no records that can be read ({broken} cannot)."
    return (
        f"Nothing can be ranked yet, of {counted(len(holdings.records), 'record')}: a board needs a pruned "
        "record and the dense record of the same weights, dtype and text."
    )


def _leader(board: Board) -> str:
    best = board.entrants[0]
    tied = [entrant.label for entrant in board.entrants if entrant.mark == "tied"]
    share = f", tied with {listed(tied[:3])}" if tied else ""
    share += f" and {len(tied) - 3} more" if len(tied) > 3 else ""
    return (
        f"At {pattern_name(board.key.pattern)}, {best.label} keeps most: recovery "
        f"{decimal(best.score, 3)}, the mean over {counted(board.n_models, 'model')}{share}."
    )


def _counts(holdings: Holdings) -> str:
    unreadable = len(holdings.unreadable)
    broken = f" {counted(unreadable, 'file')} cannot be read." if unreadable else ""
    return f"{_told(holdings.records)}{broken}"


def _told(records: Sequence[Held]) -> str:
    return f"{counted(len(records), 'record')}: {_kinds(records)}"


def _kinds(records: Iterable[Held]) -> str:
    found = Counter("failed" if h.record.status == "failed" else h.trust for h in records)
    return f"{listed([f'{n:,} {kind}' for kind, n in found.most_common()]) or 'none'}."


def _patterns(records: Iterable[Held]) -> str:
    found = Counter(held.record.cell.pattern for held in records if held.record.cell.pattern)
    names = [pattern_name(pattern) for pattern, _ in found.most_common(4)]
    return visible(", ".join(names) + (", ..." if len(found) > 4 else "")) or "dense only"


def _trust_legend() -> tuple[str, ...]:
    return (" ".join(f"{word}: {meaning}." for word, meaning in TRUST_WORDS.items()),)


def _grouped(records: Iterable[Held], key: Callable[[Held], str]) -> dict[str, list[Held]]:
    groups: dict[str, list[Held]] = {}
    for held in records:
        groups.setdefault(key(held), []).append(held)
    return groups
