"""Selects the cells that a page shows in detail: all, or the best of each ranking if there are too many.

With charts, tasks, answers and configurations of thousands of cells, a page would be too large for any
browser. The ranked table always contains every cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from reports.rankings.ranking import Entry, Ranking, Setting
from suite.results.records.record import Record

MOST_CELLS = 120
"""Maximum number of pruned cells that a page shows in detail."""

CELLS_A_SETTING = 30
"""Cells counted per setting, at most, when settings are selected because there are too many cells."""

WholeRecord = Callable[[Record], Record]
"""Reads the full record, including the modules and answers that were left out."""


def in_focus(rankings: Sequence[Ranking], most: int = MOST_CELLS) -> list[Ranking]:
    """Returns the rankings with only the entries that are shown in detail, without empty rankings.

    If there are too many entries, only the settings with the most cells remain, as a comparison of one method
    says little. Of these, the best of every ranking come first, then all the seconds, and so on up to `most`.
    """
    sizes: dict[Setting, int] = {}
    for ranking in rankings:
        sizes[ranking.setting] = sizes.get(ranking.setting, 0) + len(ranking.entries)
    if sum(sizes.values()) <= most:
        return list(rankings)
    chosen: set[Setting] = set()
    room = most
    for setting in sorted(sizes, key=lambda one: -sizes[one]):
        if room > 0:
            chosen.add(setting)
            room -= min(sizes[setting], CELLS_A_SETTING)
    shown = [(number, r) for number, r in enumerate(rankings) if r.setting in chosen]
    places = sorted((place, number) for number, r in shown for place in range(len(r.entries)))
    kept = Counter(number for _, number in places[:most])
    return [
        replace(ranking, entries=ranking.entries[: kept[number]])
        for number, ranking in enumerate(rankings)
        if number in kept
    ]


def with_whole_records(rankings: Sequence[Ranking], whole: WholeRecord) -> list[Ranking]:
    """Returns the same rankings with their records read again in full."""
    full_records: dict[str, Record] = {}

    def read(record: Record) -> Record:
        name = f"{record.cell.digest} {record.created}"
        if name not in full_records:
            full_records[name] = whole(record)
        return full_records[name]

    def entry_of(entry: Entry) -> Entry:
        return replace(entry, record=read(entry.record))

    return [
        replace(
            ranking,
            dense=None if ranking.dense is None else entry_of(ranking.dense),
            entries=tuple(map(entry_of, ranking.entries)),
            references=tuple(map(read, ranking.references)),
        )
        for ranking in rankings
    ]


__all__ = ["MOST_CELLS", "WholeRecord", "in_focus", "with_whole_records"]
