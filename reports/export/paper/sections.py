"""The settings of a comparison, each with its title and short name in an export."""

from __future__ import annotations

from dataclasses import dataclass

from reports.export.paper.cost_tables import cost_table, published_table, seeds_table
from reports.export.paper.metric_tables import metric_tables
from reports.rankings.comparison import Comparison, finished_records
from reports.rankings.ranking import Ranking
from reports.tables import Table
from suite.results.records.record import Record


@dataclass(frozen=True)
class ExportSection:
    """The rankings of one setting, which may be compared with each other.

    Attributes:
        title: model and dtype; numbered if several settings have the same.
        name: prefix of its file names; empty if there is only one setting.
        rankings: one per pattern.
    """

    title: str
    name: str
    rankings: tuple[Ranking, ...]

    @property
    def records(self) -> list[Record]:
        """The records of the section, dense ones first."""
        return finished_records(self.rankings)


def export_sections(comparison: Comparison) -> list[ExportSection]:
    """Returns one section per setting, in the order of the comparison."""
    settings = list(dict.fromkeys(ranking.setting for ranking in comparison.rankings))
    titles = [f"{setting.model} ({setting.dtype})" for setting in settings]
    sections = []
    for number, (setting, title) in enumerate(zip(settings, titles, strict=True), 1):
        alike = titles.count(title) > 1
        sections.append(
            ExportSection(
                f"{title}, setting {titles[:number].count(title)}" if alike else title,
                f"{number}-" if len(settings) > 1 else "",
                tuple(r for r in comparison.rankings if r.setting == setting),
            )
        )
    return sections


def section_tables(section: ExportSection, comparison: Comparison) -> dict[str, Table]:
    """Returns all tables of a setting that have something to show, by the name used for file and label."""
    rankings = section.rankings
    single = {
        "cost": cost_table(rankings, section.title),
        "seeds": seeds_table(rankings, section.title),
        "published": published_table(rankings, section.title),
    }
    tables = metric_tables(rankings, comparison, section.title)
    tables |= {name: table for name, table in single.items() if table is not None}
    return {f"{section.name}{name}": table for name, table in tables.items()}


__all__ = ["ExportSection", "export_sections", "section_tables"]
