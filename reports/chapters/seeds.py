"""How much perplexity varies if only the calibration seed changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.chapters.chapter import Chapter, Part, Subject, chapter_table, pruned_subjects
from reports.rankings.frame import value_of
from reports.rankings.ranking import Protocol, Ranking, by_seed, distinct_labels, without_seed
from reports.tables import TableCell, numbers, words
from reports.wording import counted, decimal, visible
from suite.results.records.record import Record
from suite.results.statistics.single import Spread, seed_spread

Seeds = dict[int, Record]
"""Maps each seed to the newest record with it, lowest seed first."""


@dataclass(frozen=True)
class SeedFamily:
    """Cells that differ only in the calibration seed, under one protocol."""

    subject: Subject
    """Its first record, with a label that leaves out the seed."""
    seeds: tuple[int, ...]
    protocol: Protocol
    spread: Spread
    """Spread of the perplexity over the seeds."""


def seed_families(rankings: Sequence[Ranking]) -> list[SeedFamily]:
    """Returns each family with more than one seed, once per protocol of the setting."""
    calibrated = [s.record for s in pruned_subjects(rankings) if s.record.cell.calibration is not None]
    families = [seeds for seeds in by_seed(calibrated) if len(seeds) > 1]
    labels = _labels([next(iter(seeds.values())) for seeds in families])
    found = []
    for label, seeds in zip(labels, families, strict=True):
        first = next(iter(seeds.values()))
        subject = Subject(label, first.cell.pattern, first)
        found += [
            SeedFamily(subject, tuple(seeds), protocol, _spread(seeds, protocol.name))
            for protocol in rankings[0].setting.protocols
        ]
    return found


def seeds_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Builds a table of mean, deviation and range, one row per family and protocol."""
    families = seed_families(rankings)
    if not families:
        return None
    spreads = [family.spread for family in families]
    columns = (
        words(
            "Protocol",
            [TableCell(visible(f.protocol.name), f"n = {counted(f.protocol.n, 'window')}") for f in families],
        ),
        numbers(
            "Seeds",
            [TableCell(str(len(f.seeds)), ", ".join(map(str, f.seeds))) for f in families],
            "how many\nand which",
        ),
        numbers(
            "Mean perplexity ↓",
            [TableCell(decimal(s.mean), "" if s.status == "ok" else visible(s.status)) for s in spreads],
            "over seeds\nlower is better",
        ),
        numbers(
            "Deviation ↓",
            [decimal(s.deviation, 3) for s in spreads],
            "sample standard deviation\nover seeds\nlower is steadier",
        ),
        numbers("Minimum", [decimal(s.minimum) for s in spreads], "over seeds"),
        numbers("Maximum", [decimal(s.maximum) for s in spreads], "over seeds"),
    )
    notes = (
        "Spread over calibration seeds, apart from the error over items: how much the number changes if the "
        "method sees other calibration samples, not how it would change on other windows, which the "
        "intervals of the ranking describe. It describes only the seeds that were run and has no interval; "
        "all of them are measured on the same windows.",
    )
    table = chapter_table("perplexity over calibration seeds", [f.subject for f in families], columns)
    return Chapter("seeds", "Seeds", (Part(table),), notes)


def _labels(records: Sequence[Record]) -> list[str]:
    """Labels the records, distinctly within each pattern as in the rankings."""
    plain = [without_seed(record) for record in records]
    patterns = {record.cell.pattern for record in plain}
    alike = {pattern: [r for r in plain if r.cell.pattern == pattern] for pattern in patterns}
    named = {pattern: iter(distinct_labels(group)) for pattern, group in alike.items()}
    return [next(named[record.cell.pattern]) for record in plain]


def _spread(seeds: Seeds, protocol: str) -> Spread:
    return seed_spread([value_of(record, "perplexity", protocol) for record in seeds.values()])
