"""The comparison report: one self-contained HTML file that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.answer import answer
from reports.charts import figures
from reports.comparison import Comparison, ReportError, compare
from reports.drawing import Figure
from reports.frame import cell_id
from reports.ranking import Ranking, Setting
from reports.tables import Table, cost_table, frame_table, ranking_table
from reports.wording import counted, pattern_name, visible
from suite.results.record import Record


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as the page needs it: its specification and its data as a table."""

    anchor: str
    figure: Figure
    spec: dict[str, Any]
    table: Table


@dataclass(frozen=True)
class Section:
    """Everything about one setting: its rankings, figures and costs."""

    anchor: str
    heading: str
    setting: Setting
    pages: tuple[tuple[Ranking, Table], ...]
    figures: tuple[DrawnFigure, ...]
    costs: Table


@dataclass(frozen=True)
class Provenance:
    """What it takes to repeat one cell."""

    anchor: str
    title: str
    record: Record
    configuration: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """An environment and the cells that ran in it."""

    n_cells: int
    facts: tuple[tuple[str, str], ...]
    document: str


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
    drawn = any(section.figures for section in sections)
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            title=title,
            answer=answer(comparison),
            summary=_summary(comparison),
            notes=[*comparison.notes, *problems],
            sections=sections,
            failed=comparison.failed,
            provenance=[_provenance(r) for r in _shown(comparison)],
            machines=_machines(_shown(comparison)),
            created=max(r.created for r in records),
            library=Markup(chart_library()) if drawn else "",
        )
    )


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
    return Section(anchor, heading, rankings[0].setting, tables, drawn, costs)


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
        for entry in ([ranking.dense] if ranking.dense else []) + list(ranking.entries):
            ranked[cell_id(entry.record)] = entry.record
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


def _provenance(record: Record) -> Provenance:
    code, model, calibration = record.code, record.model, record.calibration
    clean = {True: ", clean tree", False: ", tree with changes", None: ""}[code.git_clean]
    facts = {
        "created": record.created,
        "cell digest": record.cell.digest,
        "record digest": record.body_digest or "not sealed",
        "mask digest": record.mask_digest,
        "initial mask digest": record.initial_mask_digest,
        "model": f"{model.architecture}, {model.n_parameters:,} parameters, {model.dtype}" if model else None,
        "model revision": model.revision if model else None,
        "model weight digest": model.weight_digest if model else None,
        "calibration digest": calibration.digest if calibration else None,
        **{
            f"corpus of {w.protocol}": f"revision {w.corpus_revision}, digest {w.corpus_digest}, "
            f"limit {w.limit or 'none'}"
            for w in record.windows
        },
        "prunebench": f"{code.prunebench}, method version {code.method_version or 'none'}",
        "source digest": code.source_digest,
        "git commit": f"{code.git_commit}{clean}" if code.git_commit else None,
        "side file": f"{record.side_file.name}, {record.side_file.rows:,} rows" if record.side_file else None,
    }
    return Provenance(
        anchor=cell_id(record),
        title=record.cell.label,
        record=record,
        configuration=json.dumps(record.cell.model_dump(mode="json"), indent=2, ensure_ascii=True),
        facts=tuple((name, fact) for name, fact in facts.items() if fact is not None),
        warnings=record.warnings,
    )


def _machines(records: Sequence[Record]) -> list[Machine]:
    cells: dict[str, list[Record]] = {}
    for record in records:
        document = json.dumps(record.environment.model_dump(mode="json"), indent=2, ensure_ascii=True)
        cells.setdefault(document, []).append(record)
    return [Machine(len(group), _machine_facts(group), document) for document, group in cells.items()]


def _machine_facts(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    environment = records[0].environment
    cores = counted(environment.physical_cores, "core") if environment.physical_cores else "unknown"
    floors = [r.floor for r in records if r.floor is not None]
    facts = {
        "processor": environment.processor,
        "device": environment.device,
        "cores and threads": f"{cores}, {counted(environment.threads, 'thread')}",
        "native bf16": "yes" if environment.native_bf16 else "no",
        "matrix product": _span([f.matmul_flops_per_second / 1e9 for f in floors], "GFLOP/s"),
        "dense forward": _span([f.forward_tokens_per_second for f in floors], "tokens/s"),
        "platform": f"{environment.platform}, Python {environment.python}",
    }
    return tuple(facts.items())


def _span(values: list[float], unit: str) -> str:
    if not values:
        return "not measured"
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return f"{low if low == high else f'{low} to {high}'} {unit} ({counted(len(values), 'measurement')})"


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

__all__ = ["DrawnFigure", "Machine", "Provenance", "Section", "chart_library", "render_report"]
