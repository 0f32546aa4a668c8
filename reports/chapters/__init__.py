"""The chapters of pages and papers: what was measured besides perplexity and cost, one chapter per kind."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reports.chapters.chapter import Chapter
from reports.chapters.divergence import divergence_chapter
from reports.chapters.efficiency import efficiency_chapter
from reports.chapters.parts import parts_chapter
from reports.chapters.production import production_chapter
from reports.chapters.published import published_chapter
from reports.chapters.responses import answers_chapter
from reports.chapters.seeds import seeds_chapter
from reports.chapters.tasks import tasks_chapter
from reports.rankings.ranking import Ranking

_CHAPTERS = {
    "parts": parts_chapter,
    "divergence": divergence_chapter,
    "tasks": tasks_chapter,
    "production": production_chapter,
    "answers": answers_chapter,
    "efficiency": efficiency_chapter,
    "seeds": seeds_chapter,
    "published": published_chapter,
}


def chapters(rankings: Sequence[Ranking], names: Collection[str] = tuple(_CHAPTERS)) -> dict[str, Chapter]:
    """Returns the chapters of one setting that have something to show, by name."""
    made = {name: make(rankings) for name, make in _CHAPTERS.items() if name in names}
    return {name: chapter for name, chapter in made.items() if chapter is not None}


__all__ = ["Chapter", "chapters"]
