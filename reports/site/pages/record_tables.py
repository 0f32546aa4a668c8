"""Records as tables: lists of records, and the records of a model ranked as in the comparison report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reports.chapters import chapters
from reports.chapters.chapter import Chapter
from reports.rankings.comparison import compare
from reports.rankings.frame import cell_id
from reports.rankings.ranking import Ranking
from reports.site.boards.board import LeftOut
from reports.site.files.links import model_page, record_page
from reports.site.files.listing import Block, block
from reports.site.records.site_record import SiteRecord
from reports.tables import TableCell, numbers, ranking_table, words
from reports.wording import MISSING, decimal, interval, pattern_name, visible
from suite.results.records.index import UnreadableRecord
from suite.results.records.state import describe_failure

REASONS = "ranking reasons"
"""CSS classes of tables whose last column is a sentence."""


def records_block(heading: str, records: Iterable[SiteRecord]) -> Block:
    """Builds a table with one row per record: its identity, its perplexity, and its trust."""
    shown = list(records)
    columns = (
        words("Record", [_link(h, name_of(h), h.digest[:12]) for h in shown]),
        words("Model", map(_model, shown)),
        words(
            "Pattern",
            [TableCell(pattern_name(h.record.cell.pattern), visible(_protocol(h) or "")) for h in shown],
            "and protocol",
        ),
        numbers("Perplexity ↓", map(_perplexity, shown), "95\u00a0% interval\nlower is better"),
        words("Trust", map(trust_word, shown)),
        words("Made", [TableCell(h.record.created[:10], h.record.created[11:16]) for h in shown], "UTC"),
    )
    return block(heading, columns)


def reasons_block(heading: str, rows: Sequence[tuple[SiteRecord, str]]) -> Block:
    """Builds a table with one row per record and the reason for listing it."""
    names = [_link(h, f"{name_of(h)} {pattern_name(h.record.cell.pattern)}") for h, _ in rows]
    columns = (
        words("Record", names),
        words("Model", [_model(held) for held, _ in rows]),
        words("Why", [visible(reason) for _, reason in rows]),
    )
    return block(heading, columns, kind=REASONS)


def unreadable_block(heading: str, entries: Sequence[UnreadableRecord]) -> Block:
    """Builds a table with one row per file that is not a valid record, and the reason."""
    # The end of a path identifies the file, without revealing folders of the machine that built the site.
    names = [visible("/".join(entry.path.parts[-2:])) for entry in entries]
    columns = (words("File", names), words("Why", [visible(entry.reason) for entry in entries]))
    return block(heading, columns, kind=REASONS)


def set_apart_reason(held: SiteRecord) -> str:
    """Returns the reason why a record is not ranked, from the findings about it."""
    if held.record.status == "failed":
        return describe_failure(held.record)
    problems = [f.message for f in held.judgement.findings if f.level == "problem"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{held.trust}: {problems[0] if problems else 'no reason given'}{more}"


def left_out_rows(left_out: Sequence[LeftOut]) -> list[tuple[SiteRecord, str]]:
    """Returns the records that no board ranks, each with its reason."""
    return [(entry.held, entry.reason) for entry in left_out]


def model_blocks(ranked: Sequence[SiteRecord]) -> tuple[list[str], list[Block]]:
    """Returns notes and tables of one model's records, ranked as in the report."""
    if not ranked:
        return [], []
    by_record = {id(held.record): held for held in ranked}
    comparison = compare([held.record for held in ranked])
    settings = list(dict.fromkeys(r.setting for r in comparison.rankings))
    blocks: list[Block] = []
    for number, setting in enumerate(settings, 1):
        rankings = [r for r in comparison.rankings if r.setting == setting]
        where = setting.dtype + (f", setting {number}" if len(settings) > 1 else "")
        blocks += [_ranking_block(ranking, where, by_record) for ranking in rankings]
        blocks += _chapter_blocks(rankings, where, by_record)
    return list(comparison.notes), blocks


def name_of(held: SiteRecord) -> str:
    """Returns the method with its settings, and its seed if it is not 0."""
    cell = held.record.cell
    seed = cell.calibration.seed if cell.calibration else 0
    return visible(cell.variant) + (f", seed {seed}" if seed else "")


def trust_word(held: SiteRecord) -> str:
    """Returns the trust level of a record, or `failed`."""
    return "failed" if held.record.status == "failed" else held.trust


def _ranking_block(ranking: Ranking, where: str, by_record: Mapping[int, SiteRecord]) -> Block:
    names, *others = ranking_table(ranking).columns
    shown = [by_record[id(entry.record)] for entry in ranking.with_dense]
    linked = names.linked(record_page(held.digest) for held in shown)
    protocols = ranking.setting.protocols
    note = (
        f"Ranked by perplexity on {visible(protocols[0].name)}; prune time is the method's own phases."
        if protocols
        else "No perplexity was measured, so nothing is ranked."
    )
    columns = (linked, *others, words("Trust", map(trust_word, shown)))
    return block(f"{pattern_name(ranking.pattern)}, {where}", columns, (note,))


def _chapter_blocks(
    rankings: Sequence[Ranking], where: str, by_record: Mapping[int, SiteRecord]
) -> list[Block]:
    pages = {cell_id(held.record): record_page(held.digest) for held in by_record.values()}
    shown = {e.cell: record_page(by_record[id(e.record)].digest) for r in rankings for e in r.entries}
    found = chapters(rankings, ("divergence", "tasks", "efficiency"))
    return [part for chapter in found.values() for part in _parts(chapter, where, pages | shown)]


def _parts(chapter: Chapter, where: str, pages: Mapping[str, str]) -> list[Block]:
    blocks = []
    for number, part in enumerate(chapter.parts):
        # Parts without a heading are distinguished by their captions; a single part needs none.
        name = part.heading or (part.table.caption if len(chapter.parts) > 1 else "")
        heading = f"{chapter.title}{': ' if name else ''}{name}, {where}"
        names, *others = part.table.columns
        linked = names.linked(pages.get(cell.link, "") for cell in names.cells)
        notes = (*part.table.notes, *(chapter.notes if number == len(chapter.parts) - 1 else ()))
        blocks.append(block(heading, (linked, *others), notes))
    return blocks


def _link(held: SiteRecord, name: str, detail: str = "") -> TableCell:
    return TableCell(name, detail, link=record_page(held.digest))


def _model(held: SiteRecord) -> TableCell:
    cell = held.record.cell
    return TableCell(visible(cell.model), cell.dtype, link=model_page(cell.model))


def _protocol(held: SiteRecord) -> str | None:
    texts = held.record.cell.perplexity
    return texts[0].protocol if texts else None


def _perplexity(held: SiteRecord) -> TableCell:
    protocol = _protocol(held)
    metric = held.record.metric("perplexity", protocol) if protocol else None
    if metric is None:
        return TableCell(MISSING, "not measured")
    if metric.value is None:
        return TableCell(MISSING, visible(metric.status))
    n = f", n = {metric.n:,}" if metric.n is not None else ""
    return TableCell(decimal(metric.value), f"{interval(metric.low, metric.high) or 'no interval'}{n}")
