"""The comparison report: one self-contained HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.chapters.chapter import Chapter
from reports.chapters.divergence import divergence_chapter
from reports.chapters.efficiency import efficiency_chapter
from reports.chapters.published import published_chapter
from reports.chapters.responses import answers_chapter
from reports.chapters.seeds import seeds_chapter
from reports.chapters.tasks import tasks_chapter
from reports.charts import figures
from reports.charts.drawing import Figure
from reports.comparison import Comparison, ReportError, compare
from reports.frame import cell_id
from reports.page.answer import answer
from reports.provenance import machines, provenance
from reports.ranking import Ranking, Setting
from reports.tables import Table, cost_table, frame_table, ranking_table
from reports.wording import counted, pattern_name, visible
from suite.results.record import Record

PAGE_BYTES = 2_900_000
"""Answers, word by word, get the room that everything else leaves up to here,"""
LEAST_BYTES = 60_000
"""and this much where it leaves less."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as the page needs it: its specification and its data as a table."""

    anchor: str
    figure: Figure
    spec: dict[str, Any]
    table: Table


@dataclass(frozen=True)
class Section:
    """Everything about one setting: its rankings, what else was measured, figures and costs."""

    anchor: str
    heading: str
    setting: Setting
    pages: tuple[tuple[Ranking, Table], ...]
    chapters: tuple[Chapter, ...]
    figures: tuple[DrawnFigure, ...]
    costs: Table


def render_report(records: Sequence[Record], *, title: str, problems: Sequence[str] = ()) -> str:
    """Renders records as a comparison report.

    Args:
        records: complete and failed ones, of any number of models, patterns and protocols.
        title: the page's heading.
        problems: what kept other records out (unreadable files, stale records), one sentence each.

    Returns:
        The whole page: styles, data and the chart library are inside it.

    Raises:
        ReportError: there are no records.
    """
    try:
        comparison = compare(records)
    except ReportError as empty:
        found = f" ({'; '.join(visible(p) for p in problems)})" if problems else ""
        raise ReportError(f"{empty}{found}") from None
    sections = _sections(comparison)
    context = {
        "title": title,
        "answer": answer(comparison),
        "summary": _summary(comparison),
        "notes": [*comparison.notes, *problems],
        "chapters": _first_chapters(sections),
        "failed": comparison.failed,
        "provenance": [provenance(r) for r in _shown(comparison)],
        "machines": machines(_shown(comparison)),
        "created": max(r.created for r in records),
        "library": Markup(chart_library()) if any(section.figures for section in sections) else "",
    }
    template = _templates().get_template("report.html.j2")
    page = template.render(context, sections=sections)
    answered = [s for s in sections if any(chapter.name == "answers" for chapter in s.chapters)]
    if not answered:
        return page
    budget = max(LEAST_BYTES, PAGE_BYTES - len(page.encode())) // len(answered)
    return template.render(context, sections=[_with_answers(section, budget) for section in sections])


@lru_cache(maxsize=1)
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; it holds no `</script>` that would end its element."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a JavaScript string or expression `<\/` means the same as `</`.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["pattern"] = pattern_name
    environment.globals["counted"] = counted
    return environment


def _sections(comparison: Comparison) -> list[Section]:
    settings = list(dict.fromkeys(r.setting for r in comparison.rankings))
    return [
        _section(number, heading, [r for r in comparison.rankings if r.setting == setting])
        for number, (setting, heading) in enumerate(zip(settings, _headings(settings), strict=True), 1)
    ]


def _headings(settings: Sequence[Setting]) -> list[str]:
    """Model and dtype; numbered where several settings share them."""
    names = [f"{s.model}, {s.dtype}" for s in settings]
    return [
        name if names.count(name) == 1 else f"{name}, setting {names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]


def _section(number: int, heading: str, rankings: list[Ranking]) -> Section:
    anchor = f"setting-{number}"
    # Every table is a landmark of its own, so its name must not repeat on the page.
    tables = tuple(
        (r, replace(ranking_table(r), caption=f"{heading}: {pattern_name(r.pattern)}")) for r in rankings
    )
    drawn = tuple(_drawn(figure, f"{anchor}-{figure.name}", heading) for figure in figures(rankings))
    costs = cost_table(rankings)
    costs = replace(costs, caption=f"{heading}: {costs.caption}")
    chapters = _chapters(rankings, heading)
    return Section(anchor, heading, rankings[0].setting, tables, chapters, drawn, costs)


def _chapters(rankings: Sequence[Ranking], heading: str) -> tuple[Chapter, ...]:
    found = (
        divergence_chapter(rankings),
        tasks_chapter(rankings),
        answers_chapter(rankings, None),
        efficiency_chapter(rankings),
        seeds_chapter(rankings),
        published_chapter(rankings),
    )
    return tuple(_captioned(chapter, heading) for chapter in found if chapter is not None)


def _first_chapters(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Title and anchor of the first chapter of each kind."""
    found: dict[str, str] = {}
    for section in sections:
        for chapter in section.chapters:
            found.setdefault(chapter.title, f"{section.anchor}-{chapter.name}")
    return list(found.items())


def _captioned(chapter: Chapter, heading: str) -> Chapter:
    """With table names that do not repeat on the page."""
    parts = tuple(
        replace(part, table=replace(part.table, caption=f"{heading}: {chapter.title}, {part.table.caption}"))
        for part in chapter.parts
    )
    return replace(chapter, parts=parts)


def _with_answers(section: Section, n_bytes: int) -> Section:
    """The answers word by word, as far as they fit."""
    chapter = answers_chapter([ranking for ranking, _ in section.pages], n_bytes)
    if chapter is None:
        return section
    full = _captioned(chapter, section.heading)
    return replace(section, chapters=tuple(full if c.name == full.name else c for c in section.chapters))


def _drawn(figure: Figure, anchor: str, heading: str) -> DrawnFigure:
    spec: dict[str, Any] = figure.chart.properties(description=figure.title).to_dict()
    spec["config"] = _THEME
    spec["datasets"] = {name: _rounded(rows) for name, rows in spec["datasets"].items()}
    spec["usermeta"] = {"panelWidth": figure.panel_width, "columns": figure.columns}
    return DrawnFigure(anchor, figure, spec, frame_table(figure.data, f"{heading}: {figure.title}"))


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Six digits are more than a screen shows, and half the bytes."""
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def _shown(comparison: Comparison) -> list[Record]:
    ranked: dict[str, Record] = {}
    for ranking in comparison.rankings:
        for record in [*ranking.references, *(entry.record for entry in ranking.entries)]:
            ranked[cell_id(record)] = record
    return [*ranked.values(), *comparison.failed]


def _summary(comparison: Comparison) -> str:
    shown = _shown(comparison)
    models = len({r.cell.model for r in shown})
    patterns = len({r.cell.pattern for r in shown if r.cell.pattern})
    done = len(shown) - len(comparison.failed)
    return (
        f"{counted(done, 'cell')} finished, {len(comparison.failed)} failed; {counted(models, 'model')}, "
        f"{counted(patterns, 'sparsity pattern')}."
    )


_TEXT = {"labelColor": "var(--muted)", "titleColor": "var(--ink)", "labelFontSize": 11, "titleFontSize": 12}
_THEME: dict[str, Any] = {
    # Variables of the page's style, so that one drawing serves light, dark and print.
    "font": "system-ui, sans-serif",
    "background": "transparent",
    "view": {"stroke": "transparent"},
    "facet": {"spacing": {"column": 20, "row": 12}},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
    },
    "legend": {**_TEXT, "orient": "top", "symbolStrokeColor": "var(--ink)"},
    "header": {
        **_TEXT,
        "labelColor": "var(--ink)",
        "labelAnchor": "start",
        "labelLineHeight": 14,
        "labelPadding": 6,
    },
}

__all__ = ["DrawnFigure", "Section", "chart_library", "render_report"]
