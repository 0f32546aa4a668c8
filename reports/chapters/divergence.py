"""How far each model's next-token distributions are from the dense model's."""

from __future__ import annotations

from collections.abc import Sequence

from reports.chapters.chapter import Chapter, Part, chapter_table, metric_column, pruned_subjects
from reports.rankings.labels import DIVERGENCES
from reports.rankings.ranking import Ranking
from suite.results.records.record import Record


def divergence_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Builds a table of KL divergence and top-1 agreement, one row per pruned model compared with dense."""
    subjects = [s for s in pruned_subjects(rankings) if _is_measured(s.record)]
    if not subjects:
        return None
    protocols = dict.fromkeys(m.protocol for s in subjects for m in s.record.metrics if m.name in DIVERGENCES)
    columns = [
        metric_column(
            subjects,
            [s.record.metric(name, protocol) for s in subjects],
            title=label.title,
            about=protocol,
            unit=label.unit,
            item="window",
        )
        for protocol in protocols
        for name, label in DIVERGENCES.items()
    ]
    notes = (
        "KL divergence measures how much the dense model's next-token distribution loses if it is replaced "
        "by the pruned model's; 0 if they are equal. Top-1 agreement is the share of tokens for which both "
        "models find the same token most likely. Both are means over windows. All models read the same "
        "windows, so two of them may differ although their intervals overlap.",
    )
    table = chapter_table("divergence from dense", subjects, columns)
    return Chapter("divergence", "Divergence from dense", (Part(table),), notes)


def _is_measured(record: Record) -> bool:
    return any(metric.name in DIVERGENCES for metric in record.metrics)
