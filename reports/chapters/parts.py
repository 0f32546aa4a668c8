"""What each part of a recipe adds: perplexity with and without it, everything else equal."""

from __future__ import annotations

from collections.abc import Sequence

from reports.chapters.chapter import Chapter, Part, Subject, chapter_table
from reports.rankings.additions import Addition, additions
from reports.rankings.ranking import Ranking
from reports.tables import TableCell, numbers, words
from reports.wording import SHARE, counted, decimal, visible


def parts_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Builds one table per part, with a row per recipe that it was added to, and text."""
    found = additions(rankings)
    if not found:
        return None
    titles = dict.fromkeys(addition.title for addition in found)
    parts = [_part(title, [addition for addition in found if addition.title == title]) for title in titles]
    notes = (
        "Each row compares two recipes that differ in one part only, both measured. Perplexities over "
        "several calibration seeds are geometric means. The interval of the change is paired over windows; "
        "the range is over the seeds that were run. A part may add more or less to another recipe.",
    )
    return Chapter("parts", "What each part adds", tuple(parts), notes)


def _part(title: str, found: Sequence[Addition]) -> Part:
    subjects = [Subject(addition.base, addition.pattern, addition.record) for addition in found]
    columns = (
        words(
            "Protocol",
            [TableCell(visible(a.protocol.name), f"n = {counted(a.protocol.n, 'window')}") for a in found],
        ),
        numbers("Without ↓", [decimal(a.before) for a in found], "perplexity\nlower is better"),
        numbers("With ↓", [decimal(a.after) for a in found], "perplexity\nlower is better"),
        numbers(
            "Change ↓",
            [TableCell(change(a.ratio.value), _interval(a)) for a in found],
            "same windows\npaired 95\u00a0% interval\nlower is better",
        ),
        numbers(
            "Over seeds",
            [
                TableCell(f"{change(a.lowest)} to {change(a.highest)}", counted(len(a.seeds), "seed"))
                if len(a.seeds) > 1
                else TableCell("", counted(len(a.seeds), "seed") if a.seeds else "not calibrated")
                for a in found
            ],
            "lowest and highest\nchange of a seed",
        ),
    )
    return Part(chapter_table(title, subjects, columns, named="Added to"), heading=title)


def change(ratio: float | None) -> str:
    """Formats a ratio as a signed change in per cent: 0.9 is `-10.0 %`."""
    if ratio is None:
        return decimal(None)
    text = SHARE.value(ratio - 1)
    return f"+{text}" if ratio > 1 else text


def _interval(addition: Addition) -> str:
    low, high = addition.ratio.low, addition.ratio.high
    return "" if low is None or high is None else f"{change(low)} to {change(high)}"


__all__ = ["change", "parts_chapter"]
