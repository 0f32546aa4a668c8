"""Everything about one setting, topic by topic, in the order in which a reader asks."""

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
    "propagate) over the time the dense model needs to read the calibration set once on the same machine, so "
    "that machines compare; it is missing where no calibration was used or no reference speed of the machine "
    "measured. Evaluate is everything that measures the model: texts, tasks, answers, speed. Reference speed "
    "is the measuring of the machine."
)


TOPICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pareto": ("Quality against cost", ("time", "memory", "device-memory")),
    "sparsity": ("Quality against sparsity", ("quality",)),
    "parts": ("What each part adds", ("parts",)),
    "tasks": ("Tasks", ("recovery", "flips")),
    "divergence": ("Divergence from dense", ()),
    "layers": ("Layer by layer", ("moved", "error", "sparsity")),
    "answers": ("Answers", ()),
    "cost": ("Cost by phase", ("phases",)),
    "efficiency": ("Size and speed", ()),
    "seeds": ("Seeds", ()),
    "published": ("Published", ()),
}
"""What stands on the page, in its order: name -> heading and the names of its figures."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as the page needs it: its specification and its data as a table."""

    anchor: str
    figure: Figure
    spec: dict[str, Any]
    table: Table


@dataclass(frozen=True)
class Topic:
    """One question about a setting: figures first, then the tables.

    Attributes:
        name: short, for anchors.
        title: its heading.
        figures: those that answer it; side by side under tabs where `is_tabbed`.
        chapter: notes and tables; None where the figures say it all.
        is_tabbed: whether one figure is shown at a time.
    """

    name: str
    title: str
    figures: tuple[DrawnFigure, ...] = ()
    chapter: Chapter | None = None
    is_tabbed: bool = False

    @property
    def kind(self) -> str:
        """How its tables are set."""
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
    """A section a setting, in the order of the rankings."""
    settings = list(dict.fromkeys(r.setting for r in rankings))
    return [
        _section(number, heading, [r for r in rankings if r.setting == setting])
        for number, (setting, heading) in enumerate(zip(settings, setting_titles(settings), strict=True), 1)
    ]


def with_answers(section: Section, n_bytes: int) -> Section:
    """The answers word by word, as far as they fit into so many bytes."""
    chapter = answers_chapter(section.rankings, n_bytes)
    if chapter is None:
        return section
    full = _captioned(chapter, section.heading)
    topics = (replace(t, chapter=full) if t.name == full.name else t for t in section.topics)
    return replace(section, topics=tuple(topics))


def first_anchors(sections: Iterable[Section]) -> list[tuple[str, str]]:
    """Title and anchor of the first topic of each kind, in the order of topics."""
    found: dict[str, tuple[str, str]] = {}
    for section in sections:
        for topic in section.topics:
            found.setdefault(topic.name, (topic.title, f"{section.anchor}-{topic.name}"))
    return [found[name] for name in TOPICS if name in found]


def _section(number: int, heading: str, rankings: list[Ranking]) -> Section:
    anchor = f"setting-{number}"
    # The library checks every part against its whole schema, which takes longer than all else on the page.
    with debug_mode(False):
        drawn = {f.name: _drawn(f, f"{anchor}-chart-{f.name}", heading) for f in figures(rankings)}
    told = {**chapters(rankings), "cost": _cost_chapter(rankings)}
    topics = []
    for name, (title, names) in TOPICS.items():
        shown = tuple(drawn.pop(one) for one in names if one in drawn)
        chapter = told.get(name)
        captioned = None if chapter is None else _captioned(chapter, heading)
        topics.append(Topic(name, title, shown, captioned, is_tabbed=name == "pareto" and len(shown) > 1))
    assert not drawn, f"figures without a place: {list(drawn)}"
    kept = tuple(t for t in topics if t.figures or t.chapter)
    return Section(anchor, heading, rankings[0].setting, tuple(rankings), kept)


def _cost_chapter(rankings: Sequence[Ranking]) -> Chapter:
    return Chapter("cost", "Cost by phase", (Part(cost_table(rankings).noted(_COST_NOTE)),))


def _captioned(chapter: Chapter, heading: str) -> Chapter:
    """With table names that do not repeat on the page, as each of them is a landmark."""
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
    """Six digits are more than a screen shows, and half the bytes."""
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


__all__ = ["DrawnFigure", "Section", "Topic", "first_anchors", "sections_of", "with_answers"]
