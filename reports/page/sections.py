"""The sections of the page, one per setting, with its topics in the order of a reader's questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from altair.utils.schemapi import debug_mode

from reports.chapters import chapters
from reports.chapters.chapter import Chapter, Part
from reports.chapters.responses import answers_chapter
from reports.charts import Figure, figures
from reports.charts.drawing import specification
from reports.page.chart_theme import THEME
from reports.rankings.ranking import Ranking, Setting
from reports.rankings.settings import setting_titles
from reports.tables import Table, cost_table, frame_table

_COST_NOTE = (
    "Wall-clock seconds of one run; no interval. × forward is the prune time (allocate, statistics, solve, "
    "propagate) divided by the time of one pass of the dense model over the calibration set on the same "
    "machine, so that different machines are comparable; it is missing if no calibration was used or no "
    "reference speed of the machine measured. Evaluate is everything that measures the model: texts, tasks, "
    "answers, speed. Reference speed is the measurement of the machine."
)


TOPICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pareto": ("Quality against cost", ("time", "memory", "device-memory")),
    "sparsity": ("Quality against sparsity", ("quality",)),
    "parts": ("What each part adds", ("parts",)),
    "tasks": ("Tasks", ("recovery", "flips")),
    "production": ("Recognition and production", ()),
    "divergence": ("Divergence from dense", ()),
    "layers": ("Layer by layer", ("moved", "error", "sparsity")),
    "answers": ("Answers", ()),
    "cost": ("Cost by phase", ("phases",)),
    "efficiency": ("Size and speed", ()),
    "seeds": ("Seeds", ()),
    "published": ("Published", ()),
}
"""The topics of the page in order: name -> heading and names of the figures."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure prepared for the page: its specification, and its data as a table."""

    anchor: str
    figure: Figure
    spec: dict[str, Any]
    table: Table


@dataclass(frozen=True)
class Topic:
    """One question about a setting: first the figures that answer it, then the tables.

    Attributes:
        name: short name, used in anchors.
        title: its heading.
        figures: the figures; side by side under tabs if `is_tabbed`.
        chapter: notes and tables; None if the figures are enough.
        is_tabbed: whether only one figure is shown at a time.
    """

    name: str
    title: str
    figures: tuple[DrawnFigure, ...] = ()
    chapter: Chapter | None = None
    is_tabbed: bool = False

    @property
    def kind(self) -> str:
        """CSS classes of its tables."""
        return "cost" if self.name == "cost" else "ranking measured"


@dataclass(frozen=True)
class Section:
    """Everything about one setting."""

    anchor: str
    heading: str
    setting: Setting
    rankings: tuple[Ranking, ...]
    topics: tuple[Topic, ...]


def sections_of(rankings: Sequence[Ranking]) -> list[Section]:
    """Builds one section per setting, in the order of the rankings."""
    settings = list(dict.fromkeys(r.setting for r in rankings))
    return [
        _section(number, heading, [r for r in rankings if r.setting == setting])
        for number, (setting, heading) in enumerate(zip(settings, setting_titles(settings), strict=True), 1)
    ]


def with_answers(section: Section, n_bytes: int) -> Section:
    """Adds the full answers, as far as they fit into `n_bytes`."""
    chapter = answers_chapter(section.rankings, n_bytes)
    if chapter is None:
        return section
    full = _captioned(chapter, section.heading)
    topics = (replace(t, chapter=full) if t.name == full.name else t for t in section.topics)
    return replace(section, topics=tuple(topics))


def first_anchors(sections: Iterable[Section]) -> list[tuple[str, str]]:
    """Returns title and anchor of the first topic of each kind, in the order of topics."""
    found: dict[str, tuple[str, str]] = {}
    for section in sections:
        for topic in section.topics:
            found.setdefault(topic.name, (topic.title, f"{section.anchor}-{topic.name}"))
    return [found[name] for name in TOPICS if name in found]


def _section(number: int, heading: str, rankings: list[Ranking]) -> Section:
    anchor = f"setting-{number}"
    # The library checks every part against its whole schema, which takes longer than the rest of the page.
    with debug_mode(False):
        drawn = {f.name: _drawn(f, f"{anchor}-chart-{f.name}", heading) for f in figures(rankings)}
    by_name = {**chapters(rankings), "cost": _cost_chapter(rankings)}
    topics = []
    for name, (title, names) in TOPICS.items():
        shown = tuple(drawn.pop(one) for one in names if one in drawn)
        chapter = by_name.get(name)
        captioned = None if chapter is None else _captioned(chapter, heading)
        topics.append(Topic(name, title, shown, captioned, is_tabbed=name == "pareto" and len(shown) > 1))
    assert not drawn, f"figures without a place: {list(drawn)}"
    kept = tuple(t for t in topics if t.figures or t.chapter)
    return Section(anchor, heading, rankings[0].setting, tuple(rankings), kept)


def _cost_chapter(rankings: Sequence[Ranking]) -> Chapter:
    return Chapter("cost", "Cost by phase", (Part(cost_table(rankings).noted(_COST_NOTE)),))


def _captioned(chapter: Chapter, heading: str) -> Chapter:
    """Makes table captions unique on the page, as each table is a landmark."""
    parts = tuple(
        replace(part, table=replace(part.table, caption=f"{heading}: {chapter.title}, {part.table.caption}"))
        for part in chapter.parts
    )
    return replace(chapter, parts=parts)


def _drawn(figure: Figure, anchor: str, heading: str) -> DrawnFigure:
    spec = specification(figure.chart.properties(description=figure.title), validate=False)
    spec["config"] = THEME
    spec["datasets"] = {name: _rounded(rows) for name, rows in spec["datasets"].items()}
    spec["usermeta"] = {"panelWidth": figure.panel_width, "columns": spec["columns"]}
    return DrawnFigure(anchor, figure, spec, frame_table(figure.data, f"{heading}: {figure.title}"))


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rounds to six digits, more than a screen shows, which halves the bytes."""
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


__all__ = ["DrawnFigure", "Section", "Topic", "first_anchors", "sections_of", "with_answers"]
