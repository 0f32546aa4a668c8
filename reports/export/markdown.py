"""A comparison as Markdown: the report's answer, notes and tables, for an issue, a README or a model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.chapters import chapters
from reports.export.markdown_text import markdown, markdown_table
from reports.export.paper.sections import ExportSection, export_sections
from reports.rankings.comparison import Comparison, compare
from reports.rankings.frame import cell_id
from reports.rankings.headline import answer
from reports.tables import cost_table, ranking_table
from reports.wording import pattern_name
from suite.results.records.record import Record
from suite.results.records.state import describe_failure


def export_markdown(records: Sequence[Record], *, title: str, problems: Sequence[str] = ()) -> str:
    """Exports records as one Markdown document.

    Args:
        records: complete and failed ones.
        title: heading of the document.
        problems: why other records were left out, one sentence each.

    Raises:
        ReportError: there are no records.
    """
    comparison = compare(records)
    found = answer(comparison)
    parts = [f"# {markdown(title)}", *map(markdown, (found.which, found.cost, found.trust))]
    if notes := [*comparison.notes, *problems]:
        parts.append("\n".join(f"- {markdown(note)}" for note in notes))
    for section in export_sections(comparison):
        parts += _section(section)
    parts += _failures(comparison)
    return "\n\n".join(parts) + "\n"


def _section(section: ExportSection) -> Iterator[str]:
    yield f"## {markdown(section.title)}"
    for ranking in section.rankings:
        yield f"### {markdown(pattern_name(ranking.pattern))}"
        yield markdown_table(ranking_table(ranking))
    for chapter in chapters(section.rankings).values():
        yield f"### {markdown(chapter.title)}"
        for part in chapter.parts:
            if part.heading:
                yield f"#### {markdown(part.heading)}"
            yield markdown_table(part.table)
            yield from (markdown(note) for note in part.table.notes)
        yield from (markdown(note) for note in chapter.notes)
    yield "### Cost"
    costs = cost_table(section.rankings)
    yield markdown_table(costs)
    yield markdown(f"{costs.caption}.")


def _failures(comparison: Comparison) -> Iterator[str]:
    if comparison.failed:
        yield "## Failed"
        yield "\n".join(
            f"- {cell_id(r)}: {markdown(r.cell.label)}: {markdown(describe_failure(r))}"
            for r in comparison.failed
        )


__all__ = ["export_markdown"]
