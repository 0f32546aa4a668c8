"""The comparison report: one self-contained HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from reports.page.board import PAGE_ROWS, boards
from reports.page.chart_theme import chart_library
from reports.page.focus import WholeRecord, in_focus, with_whole_records
from reports.page.sections import Section, first_anchors, sections_of, with_answers
from reports.rankings.comparison import Comparison, ReportError, compare, finished_records
from reports.rankings.frame import cell_id
from reports.rankings.headline import answer
from reports.rankings.provenance import machines, provenance
from reports.rankings.ranking import Entry, Ranking
from reports.templating import templates
from reports.wording import counted, pattern_name, visible
from suite.results.records.record import Record

PAGE_BYTES = 2_900_000
"""Target size of the page; full answers get the room that everything else leaves,"""
LEAST_BYTES = 60_000
"""but at least this much."""
MOST_FAILURES = 100
"""Maximum number of failed cells listed with their reason; further ones are only counted."""
MOST_NOTES = 12
"""Number of notes visible at once; the others can be unfolded."""


def render_report(
    records: Sequence[Record],
    *,
    title: str,
    problems: Sequence[str] = (),
    whole: WholeRecord | None = None,
) -> str:
    """Renders records as a comparison report.

    Args:
        records: complete and failed ones, of any number of models, patterns and protocols.
        title: the page's heading.
        problems: why other records were left out (unreadable files, stale records), one sentence each.
        whole: reads a record again in full, if `records` lack modules and answers.

        Returns:
        The complete page, which includes styles, data and the chart library.

    Raises:
        ReportError: there are no records.
    """
    try:
        comparison = compare(records)
    except ReportError as empty:
        found = f" ({'; '.join(visible(p) for p in problems)})" if problems else ""
        raise ReportError(f"{empty}{found}") from None
    focus = in_focus(comparison.rankings)
    failed = comparison.failed[:MOST_FAILURES]
    if whole is not None:
        focus = with_whole_records(focus, whole)
        failed = tuple(map(whole, failed))
    sections = sections_of(focus)
    detailed = [*finished_records(focus), *failed]
    linked = {cell_id(record) for record in detailed}
    without_rank = _unranked(comparison.rankings)
    context = {
        "title": title,
        "answer": answer(comparison, len(problems)),
        "summary": _summary(comparison),
        "notes": [*problems, *comparison.notes, *_left_out(comparison.rankings, focus)],
        "most_notes": MOST_NOTES,
        "boards": boards(comparison.rankings, linked),
        "page_rows": PAGE_ROWS,
        "topics": first_anchors(sections),
        "failed": failed,
        "n_failed": len(comparison.failed),
        "unranked": without_rank[:MOST_FAILURES],
        "n_unranked": len(without_rank),
        "detailed": linked,
        "provenance": [provenance(record) for record in detailed],
        "machines": machines(detailed),
        "created": max(r.created for r in records),
        "library": Markup(chart_library()) if _has_figures(sections) else "",
    }
    template = _templates().get_template("report.html.j2")
    page = template.render(context, sections=sections)
    answered = [s for s in sections if any(topic.name == "answers" for topic in s.topics)]
    if not answered:
        return page
    budget = max(LEAST_BYTES, PAGE_BYTES - len(page.encode())) // len(answered)
    return template.render(context, sections=[with_answers(section, budget) for section in sections])


def render_waiting(*, title: str) -> str:
    """Renders the page of a run that has no record yet."""
    return _templates().get_template("waiting.html.j2").render(title=title)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return templates(PackageLoader("reports"))


def _unranked(rankings: Sequence[Ranking]) -> list[tuple[str, str, str]]:
    """Lists finished cells without a rank, in the order of the rankings: cell id, description and reason."""
    return [
        (entry.cell, f"{r.setting.model}, {entry.label}, {pattern_name(r.pattern)}", _reason(entry))
        for r in rankings
        for entry in r.entries
        if entry.rank is None
    ]


def _reason(entry: Entry) -> str:
    if not entry.scores:
        return "perplexity was not measured"
    return f"it has no perplexity on the text used for ranking: {visible(entry.scores[0].status)}"


def _left_out(rankings: Sequence[Ranking], focus: Sequence[Ranking]) -> list[str]:
    n_all, n_shown = (sum(len(r.entries) for r in found) for found in (rankings, focus))
    if n_shown == n_all:
        return []
    return [
        f"Charts, tasks, answers, costs and configurations are shown for {n_shown:,} of {n_all:,} pruned "
        "models, those with the most to compare, the best of each pattern first; the ranking has all. A "
        "report of some cells (prunebench report --only) or a site (prunebench site) shows the others."
    ]


def _has_figures(sections: Sequence[Section]) -> bool:
    return any(topic.figures for section in sections for topic in section.topics)


def _summary(comparison: Comparison) -> str:
    """Summarizes what was compared, in counts and names."""
    done = finished_records(comparison.rankings)
    shown = [*done, *comparison.failed]
    models = list(dict.fromkeys(visible(r.cell.model) for r in shown))
    patterns = list(dict.fromkeys(r.cell.pattern for r in shown if r.cell.pattern))
    methods = list(dict.fromkeys(visible(r.cell.method) for r in shown if not r.cell.is_dense))
    return (
        f"{counted(len(done), 'cell')} finished, {len(comparison.failed):,} failed: "
        f"{_named(models, 'model')}, {_named(methods, 'method')}, "
        f"{_named([pattern_name(p) for p in patterns], 'pattern')}."
    )


def _named(names: Sequence[str], kind: str) -> str:
    """Returns how many there are, and their names if they are few."""
    number = counted(len(names), kind)
    return f"{number} ({', '.join(names)})" if 0 < len(names) <= 5 else number


__all__ = ["render_report", "render_waiting"]
