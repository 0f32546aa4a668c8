"""Titles for the settings of a comparison, which are always distinct."""

from __future__ import annotations

from collections.abc import Sequence

from reports.rankings.ranking import Protocol, Setting
from reports.wording import visible


def setting_titles(settings: Sequence[Setting]) -> list[str]:
    """Returns model and dtype; equal titles are extended by what distinguishes them, or else numbered."""
    titles = [f"{s.model}, {s.dtype}" for s in settings]
    for facts in (_texts, _weights, _revisions):
        titles = _told_apart(titles, [facts(s) for s in settings])
    return [
        title if titles.count(title) == 1 else f"{title}, setting {titles[: i + 1].count(title)}"
        for i, title in enumerate(titles)
    ]


def protocol_title(protocol: Protocol) -> str:
    """Returns a protocol's name with its cap, because a capped text is a different text."""
    limit = f", first {protocol.limit:,} tokens" if protocol.limit else ""
    return f"{visible(protocol.name)}{limit}"


def _told_apart(titles: Sequence[str], facts: Sequence[str]) -> list[str]:
    """Appends its fact to each title that occurs several times with different facts."""
    extended = []
    for title, fact in zip(titles, facts, strict=True):
        twins = {other for name, other in zip(titles, facts, strict=True) if name == title}
        extended.append(f"{title}, {fact}" if len(twins) > 1 else title)
    return extended


def _texts(setting: Setting) -> str:
    return " and ".join(protocol_title(p) for p in setting.protocols) or "no perplexity"


def _weights(setting: Setting) -> str:
    return f"weights {visible(setting.weight_digest[:8]) or 'unknown'}"


def _revisions(setting: Setting) -> str:
    return ", ".join(f"revision {visible(p.corpus_revision) or 'unknown'}" for p in setting.protocols)


__all__ = ["protocol_title", "setting_titles"]
