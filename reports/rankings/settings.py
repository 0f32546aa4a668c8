"""What the settings of a comparison are called, so that two of them never read the same."""

from __future__ import annotations

from collections.abc import Sequence

from reports.rankings.ranking import Protocol, Setting
from reports.wording import visible


def setting_titles(settings: Sequence[Setting]) -> list[str]:
    """Model and dtype; where several share them, with what sets them apart, and at last with a number."""
    titles = [f"{s.model}, {s.dtype}" for s in settings]
    for facts in (_texts, _weights, _revisions):
        titles = _told_apart(titles, [facts(s) for s in settings])
    return [
        title if titles.count(title) == 1 else f"{title}, setting {titles[: i + 1].count(title)}"
        for i, title in enumerate(titles)
    ]


def protocol_title(protocol: Protocol) -> str:
    """A protocol's name with its cap: a capped text is another text."""
    limit = f", first {protocol.limit:,} tokens" if protocol.limit else ""
    return f"{visible(protocol.name)}{limit}"


def _told_apart(titles: Sequence[str], facts: Sequence[str]) -> list[str]:
    """The titles that are not alone, each with its fact, where the facts differ."""
    told = []
    for title, fact in zip(titles, facts, strict=True):
        twins = {other for name, other in zip(titles, facts, strict=True) if name == title}
        told.append(f"{title}, {fact}" if len(twins) > 1 else title)
    return told


def _texts(setting: Setting) -> str:
    return " and ".join(protocol_title(p) for p in setting.protocols) or "no perplexity"


def _weights(setting: Setting) -> str:
    return f"weights {visible(setting.weight_digest[:8]) or 'unknown'}"


def _revisions(setting: Setting) -> str:
    return ", ".join(f"revision {visible(p.corpus_revision) or 'unknown'}" for p in setting.protocols)


__all__ = ["protocol_title", "setting_titles"]
