"""Finished cells that could not be ranked, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from reports.rankings.comparison import Comparison
from reports.rankings.ranking import Entry
from reports.wording import pattern_name, visible


@dataclass(frozen=True)
class Unranked:
    """A finished cell without a place.

    Attributes:
        cell: names its configuration.
        title: method and pattern, and the model.
        reason: why it has none.
    """

    cell: str
    title: str
    reason: str


def unranked(comparison: Comparison) -> list[Unranked]:
    """In the order of the rankings."""
    return [
        Unranked(
            entry.cell,
            f"{ranking.setting.model}, {entry.label}, {pattern_name(ranking.pattern)}",
            _reason(entry),
        )
        for ranking in comparison.rankings
        for entry in ranking.entries
        if entry.rank is None
    ]


def _reason(entry: Entry) -> str:
    if not entry.scores:
        return "perplexity was not measured"
    return f"it has no perplexity on the text that ranks: {visible(entry.scores[0].status)}"


__all__ = ["Unranked", "unranked"]
