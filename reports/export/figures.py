"""The report's charts as files for a paper: SVG and PDF, one column wide, colours that survive any eye."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pandas as pd
import vl_convert

from reports.charts import figures
from reports.charts.drawing import Figure
from reports.comparison import ReportError, compare
from reports.export.layout import COLUMN
from reports.export.markdown_text import markdown, markdown_table
from reports.export.sections import export_sections
from reports.ranking import Ranking
from reports.tables import frame_table
from reports.wording import visible
from suite.results.record import Record

MOST_ROWS = 4
"""Rows of panels in one figure: more of them do not fit a page with their caption,"""
MOST_TALL_ROWS = 3
"""and of the taller panels even fewer."""
TITLE_CHARACTERS = 52
"""In a line of the title that is drawn."""


@dataclass(frozen=True)
class PaperFigure:
    """A figure, drawn.

    Attributes:
        name: a word for its file.
        title: what is seen, in a sentence without its stop.
        note: axes, protocol, n, uncertainty and which way is better.
        part: which part of the panels it shows; empty where it shows all.
        svg: with the width in points.
        pdf: with its fonts inside.
        data: what all parts show, as a table.
    """

    name: str
    title: str
    note: str
    part: str
    svg: bytes
    pdf: bytes
    data: pd.DataFrame

    @property
    def data_csv(self) -> bytes:
        """The data as a CSV file."""
        return self.data.to_csv(index=False).encode()


def export_figures(records: Sequence[Record]) -> dict[str, bytes]:
    """Every figure of the records as a folder of files.

    Returns:
        Contents by path inside the folder: `.svg`, `.pdf` and `.csv` a figure, and `figures.md`, which shows
        each with its title, its note and its data as a table beneath.

    Raises:
        ReportError: there are no records, or nothing that could be drawn.
    """
    out: dict[str, bytes] = {}
    pages: list[str] = []
    for section in export_sections(compare(records)):
        for figure in paper_figures(section.rankings, section.title, titled=True):
            name = f"{section.name}{figure.name}"
            out |= {f"{name}.svg": figure.svg, f"{name}.pdf": figure.pdf, f"{name}.csv": figure.data_csv}
            pages.append(_page(name, figure))
    if not out:
        raise ReportError(
            "nothing to draw: no finished cell has both a prune time and a perplexity, or layers"
        )
    out["figures.md"] = "\n".join(pages).encode()
    return out


def paper_figures(rankings: Sequence[Ranking], title: str, *, titled: bool) -> list[PaperFigure]:
    """The figures of one setting.

    Args:
        rankings: all of the setting.
        title: the setting's, which every figure's title names.
        titled: whether the title is drawn too; a paper's caption says it already.
    """
    return [drawn for figure in figures(rankings) for drawn in _parts(figure, title, titled=titled)]


def _parts(figure: Figure, setting: str, *, titled: bool) -> list[PaperFigure]:
    spec = figure.chart.to_dict()
    panels: list[str] = spec["facet"]["sort"]
    columns = 1 if figure.name == "time" else min(2, len(panels))
    most = MOST_TALL_ROWS if columns == 1 else columns * MOST_ROWS
    chunks = [panels[i : i + most] for i in range(0, len(panels), most)]
    title = f"{visible(figure.title)} ({setting})"
    drawn = []
    for place, chunk in enumerate(chunks, 1):
        several = len(chunks) > 1
        part = f"Part {place} of {len(chunks)}; linear axes of two parts may differ." if several else ""
        lines = textwrap.wrap(title, TITLE_CHARACTERS) if titled else []
        svg, pdf = _drawn(_of_panels(spec, chunk), columns, lines, is_small=figure.name != "time")
        name = f"{figure.name}-{place}" if several else figure.name
        drawn.append(PaperFigure(name, title, figure.note, part, svg, pdf, figure.data))
    return drawn


def _of_panels(spec: dict[str, Any], panels: Sequence[str]) -> dict[str, Any]:
    """The chart with these panels alone."""
    field = spec["facet"]["field"]
    datasets = {
        name: [row for row in rows if row.get(field) in panels] for name, rows in spec["datasets"].items()
    }
    return {**spec, "facet": {**spec["facet"], "sort": list(panels)}, "datasets": datasets}


def _drawn(
    spec: dict[str, Any], columns: int, title: Sequence[str], *, is_small: bool
) -> tuple[bytes, bytes]:
    """SVG and PDF, as wide as a column."""
    spec = json.loads(_with_colors(json.dumps(spec, ensure_ascii=False)).translate(_NOT_IN_XML))
    _shrink(spec["spec"])
    spec["config"] = _THEME
    spec["columns"] = columns
    if title:
        lines = [line.translate(_NOT_IN_XML) for line in title]
        spec["title"] = {"text": lines, "anchor": "start", "fontSize": 8, "fontWeight": "bold"}
    spec["spec"]["height"] = 70 if is_small else 130
    width = COLUMN / columns - 40
    # Axes and legends take what they need; two rounds leave the panels what remains.
    for _ in range(3):
        spec["spec"]["width"] = width
        svg = vl_convert.vegalite_to_svg(spec)
        width = max(24.0, width + (COLUMN - _svg_width(svg)) / columns)
    sized = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r'\1 width="\2pt" height="\3pt"', svg, count=1
    )
    return sized.encode(), vl_convert.vegalite_to_pdf(spec)


def _shrink(view: dict[str, Any]) -> None:
    """Marks as small as the panels are."""
    for layer in view.get("layer", []):
        _shrink(layer)
    mark = view.get("mark")
    if isinstance(mark, dict):
        mark |= {name: size for name, size in _MARKS.get(mark["type"], {}).items() if name in mark}


def _svg_width(svg: str) -> float:
    found = re.search(r'<svg[^>]*? width="([\d.]+)"', svg)
    assert found is not None, "vl-convert draws an SVG without a width"
    return float(found[1])


def _with_colors(text: str) -> str:
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: _palette().get(match[1], match[0]), text)


@lru_cache(maxsize=1)
def _palette() -> dict[str, str]:
    """The page's colours by light, which were chosen to be told apart by every kind of eye."""
    style = files("reports").joinpath("templates/style.css").read_text(encoding="utf-8")
    light = style[style.index(":root {") : style.index("}")]
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6});", light))


def _page(name: str, figure: PaperFigure) -> str:
    table = markdown_table(frame_table(figure.data, figure.title))
    title, note = markdown(figure.title), markdown(f"{figure.note} {figure.part}")
    return f"## {title}\n\n![{title}]({name}.svg)\n\n{note}\n\n{table}\n"


_NOT_IN_XML = {code: f"U+{code:04X}" for code in (*range(0xD800, 0xE000), 0xFFFE, 0xFFFF)}
"""What an SVG cannot hold and a page can; control characters are written out already."""
_MARKS: dict[str, dict[str, Any]] = {
    "text": {"fontSize": 6.5, "dx": {"expr": "5 * datum.side"}, "dy": -4},
    "point": {"size": 28},
    "rule": {"strokeWidth": 0.8},
    "line": {"strokeWidth": 1.0},
}
_SMALL = {"labelFontSize": 6.5, "titleFontSize": 7.5, "labelColor": "#1b1c1e", "titleColor": "#1b1c1e"}
_THEME: dict[str, Any] = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": "white",
    "padding": 2,
    "view": {"stroke": "transparent"},
    "facet": {"spacing": {"column": 8, "row": 6}},
    "text": {"fontSize": 7},
    "axis": {
        **_SMALL,
        "titleFontWeight": "normal",
        "titlePadding": 3,
        "labelPadding": 2,
        "tickSize": 3,
        "gridColor": "#dcdee2",
        "gridWidth": 0.5,
        "domainColor": "#5c6066",
        "tickColor": "#5c6066",
    },
    "legend": {
        **_SMALL,
        "orient": "top",
        "symbolStrokeColor": "#1b1c1e",
        "symbolSize": 28,
        "labelLimit": 90,
        "offset": 4,
        "columns": 4,
    },
    "header": {
        "labelFontSize": 7,
        "labelColor": "#1b1c1e",
        "labelAnchor": "start",
        "labelLineHeight": 8,
        "labelPadding": 3,
    },
}

__all__ = ["PaperFigure", "export_figures", "paper_figures"]
