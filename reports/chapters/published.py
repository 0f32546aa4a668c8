"""Numbers from papers next to ours, only if everything that determines the number is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.chapters.chapter import (
    Chapter,
    Part,
    Subject,
    chapter_table,
    dense_subjects,
    pruned_subjects,
)
from reports.rankings.frame import value_of
from reports.rankings.ranking import Protocol, Ranking
from reports.tables import TableCell, numbers, words
from reports.wording import MISSING, counted, decimal, interval, visible
from suite.results.published import PublishedValue, published_values
from suite.results.records.record import Record
from suite.results.statistics.perplexity import perplexity_from_nll

_EVIDENCE = {"authors": "the authors' own text", "quoted": "quoted from the paper in the authors' tracker"}


def published_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Builds a table with a row per published number that one of our records corresponds to."""
    found = list(published_matches(rankings))
    if not found:
        return None
    columns = (
        words("Protocol", [_protocol_cell(protocol) for _, protocol, _ in found]),
        numbers(
            "Ours ↓",
            [_ours(subject.record, protocol) for subject, protocol, _ in found],
            "perplexity\n95\u00a0% interval\nlower is better",
        ),
        numbers(
            "Published ↓",
            [f"{value.value:g}" for _, _, value in found],
            "perplexity, as printed\nno interval\nlower is better",
        ),
        words("Paper", [_paper(value) for _, _, value in found]),
        words(
            "Calibration",
            [
                TableCell(visible(value.calibration or MISSING), _calibration(subject.record))
                for subject, _, value in found
            ],
            "theirs\nours",
        ),
        words(
            "Evidence",
            [TableCell(_EVIDENCE[value.evidence], visible(value.note or "")) for _, _, value in found],
            "where it was read",
        ),
    )
    notes = (
        "A published number is listed only if model, method and settings, pattern and protocol are the "
        "same, and the whole text was read here. Library versions, dtype and calibration may still differ.",
    )
    table = chapter_table("published numbers beside ours", [subject for subject, _, _ in found], columns)
    return Chapter("published", "Published", (Part(table),), notes)


def published_matches(rankings: Sequence[Ranking]) -> Iterator[tuple[Subject, Protocol, PublishedValue]]:
    """Yields every published number with a corresponding record of the setting, and the protocol."""
    # A capped text has the protocol's name but is another text; without windows the text is unknown.
    whole = [p for p in rankings[0].setting.protocols if p.corpus_digest and not p.limit]
    for subject in [*dense_subjects(rankings)[:1], *pruned_subjects(rankings)]:
        cell = subject.record.cell
        for protocol in whole:
            if value_of(subject.record, "perplexity", protocol.name) is None:
                continue
            for value in published_values(
                model=cell.model,
                method=cell.method,
                pattern=cell.pattern,
                protocol=protocol.name,
                settings=cell.settings,
                allocation=cell.allocation.name if cell.allocation else None,
            ):
                yield subject, protocol, value


def _protocol_cell(protocol: Protocol) -> TableCell:
    return TableCell(visible(protocol.name), f"n = {counted(protocol.n, 'window')}, whole text")


def _ours(record: Record, protocol: Protocol) -> TableCell:
    losses = next((w.nll for w in record.windows if w.protocol == protocol.name), None)
    spread = ""
    if losses is not None:
        estimate = perplexity_from_nll(losses)
        spread = interval(estimate.low, estimate.high)
    return TableCell(decimal(value_of(record, "perplexity", protocol.name)), spread or "no interval")


def _paper(value: PublishedValue) -> TableCell:
    where = f"arXiv {value.paper.arxiv}" + (f", table {value.table}" if value.table else "")
    return TableCell(where, visible(value.paper.title))


def _calibration(record: Record) -> str:
    used = record.calibration
    if used is None:
        return "ours: none"
    seed = "" if used.seed is None else f", seed {used.seed}"
    return visible(f"ours: {used.source}, {used.n_samples} sequences of {used.seqlen:,} tokens{seed}")
