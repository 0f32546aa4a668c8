"""The pages that consist of tables, and their contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from reports.site.boards.board import Board, Boards
from reports.site.boards.board_tables import RULE, TIES, board_block, method_block
from reports.site.files.links import board_page, method_page, model_page
from reports.site.files.listing import Block, Listing, block
from reports.site.pages.overview import BOARDS, boards_block, kinds, leader, told
from reports.site.pages.record_tables import (
    left_out_rows,
    model_blocks,
    reasons_block,
    records_block,
    set_apart_reason,
    unreadable_block,
)
from reports.site.records.site_record import Holdings, SiteRecord
from reports.site.records.trust import TRUST_WORDS
from reports.tables import TableCell, numbers, words
from reports.wording import pattern_name, visible


def listings(holdings: Holdings, boards: Boards) -> Iterator[Listing]:
    """Yields all pages that consist of tables."""
    for board in boards.boards:
        yield Listing(
            board_page(board.key.name),
            board.title,
            "boards",
            (leader(board),),
            blocks=(_with_rule(board_block(board)),),
        )
    yield Listing(
        BOARDS,
        "Boards",
        "boards",
        () if boards.boards else ("There are no boards yet.",),
        blocks=(boards_block(boards.boards),) if boards.boards else (),
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
    intro = () if holdings.records else ("There are no records.",)
    yield Listing(
        "records/index.html",
        "Records",
        "records",
        (*intro, "Newest first. How far each can be trusted:"),
        tuple(TRUST_WORDS.items()),
        blocks=(records_block("All records", holdings.records),) if holdings.records else (),
    )
    yield _not_ranked(holdings, boards)


def _with_rule(ranking: Block) -> Block:
    """Adds the rule below the ranking, where it does not move the ranking down."""
    return replace(ranking, heading="Ranking", table=ranking.table.noted(RULE, TIES))


def _model(name: str, records: Sequence[SiteRecord]) -> Listing:
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
            (
                "weights",
                ", ".join(dict.fromkeys(h.record.model.weight_digest for h in records if h.record.model)),
            ),
        ]
    empty = () if ranked else ("No record of this model can be ranked; the reasons are listed below.",)
    return Listing(
        model_page(name),
        visible(name),
        "models",
        (told(records), *empty, *notes),
        tuple(facts),
        tuple(blocks),
    )


def _method(name: str, records: Sequence[SiteRecord], boards: Sequence[Board]) -> Listing:
    method_boards = [board for board in boards if any(entrant.method == name for entrant in board.entrants)]
    blocks = [method_block(board, name) for board in method_boards]
    intro = [told(records)]
    if not method_boards:
        intro.append("No record of this method is on a board.")
    return Listing(
        method_page(name),
        visible(name),
        "methods",
        tuple(intro),
        blocks=(*blocks, records_block("All its records", records)),
    )


def _not_ranked(holdings: Holdings, boards: Boards) -> Listing:
    def rows(held: Iterable[SiteRecord]) -> list[tuple[SiteRecord, str]]:
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
    intro = "All submitted records that are on no board, with the reason. Nothing is left out silently."
    return Listing(
        "not-ranked.html",
        "Not ranked",
        "not-ranked",
        (
            intro
            if blocks
            else "Every record is on a board, or is a dense one that others are compared with.",
        ),
        blocks=tuple(blocks),
    )


def _index(section: str, title: str, entries: Sequence[tuple[str, str, Sequence[SiteRecord]]]) -> Listing:
    found = sorted(entries)
    columns = (
        words(title.removesuffix("s"), [TableCell(visible(name), link=path) for name, path, _ in found]),
        numbers("Records", [f"{len(records):,}" for _, _, records in found]),
        words("Patterns", [_patterns(records) for _, _, records in found]),
        words("Trust", [kinds(records).rstrip(".") for _, _, records in found]),
    )
    none = () if found else (f"There are no {section} yet.",)
    blocks = (block(f"All {section}", columns),) if found else ()
    return Listing(f"{section}/index.html", title, section, none, blocks=blocks)


def _patterns(records: Iterable[SiteRecord]) -> str:
    found = Counter(held.record.cell.pattern for held in records if held.record.cell.pattern)
    names = [pattern_name(pattern) for pattern, _ in found.most_common(4)]
    return visible(", ".join(names) + (", ..." if len(found) > 4 else "")) or "dense only"


def _grouped(records: Iterable[SiteRecord], key: Callable[[SiteRecord], str]) -> dict[str, list[SiteRecord]]:
    groups: dict[str, list[SiteRecord]] = {}
    for held in records:
        groups.setdefault(key(held), []).append(held)
    return groups
