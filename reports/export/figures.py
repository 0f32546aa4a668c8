"""Charts as files for a paper: SVG and PDF, one column wide, in colours safe for colour blindness."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import vl_convert

from reports.charts import figures
from reports.charts.drawing import Figure, specification
from reports.export.layout import COLUMN
from reports.export.markdown_text import markdown, markdown_table
from reports.export.paper.sections import export_sections
from reports.rankings.comparison import ReportError, compare
from reports.rankings.ranking import Ranking
from reports.tables import frame_table
from reports.wording import visible
from suite.results.records.record import Record

PANELS_HEIGHT = 510
"""Maximum height of all panels of one figure, in points: more does not fit a page with the caption."""
AROUND = 40
"""Height that a panel needs besides its own: its title and the gap to the next one, in points."""
SLACK = 4
"""How much wider than a column a figure may be, in points."""
LONGEST_NAME = 150
"""Maximum width of a panel's name if the panel has the column for itself, in points."""
TITLE_CHARACTERS = 52
"""Characters per line of the drawn title."""


@dataclass(frozen=True)
class PaperFigure:
    """A figure drawn for a paper.

    Attributes:
        figure: what is drawn.
        name: a word for its file.
        title: the figure's title with that of the setting.
        part: which part of the panels it shows; empty if it shows all.
        svg: the SVG, with its width in points.
        pdf: the PDF, with embedded fonts.
    """

    figure: Figure
    name: str
    title: str
    part: str
    svg: bytes
    pdf: bytes

    @property
    def data_csv(self) -> bytes:
        """The data of all parts as a CSV file."""
        return self.figure.data.to_csv(index=False).encode()


def export_figures(records: Sequence[Record]) -> dict[str, bytes]:
    """Draws every figure of the records as files of one folder.

    Returns:
        Contents by path inside the folder: `.svg`, `.pdf` and `.csv` per figure, and `figures.md`, which
        shows each with its title, its note and its data as a table below.

    Raises:
        ReportError: there are no records, or nothing that could be drawn.
    """
    out: dict[str, bytes] = {}
    pages: list[str] = []
    for section in export_sections(compare(records)):
        for drawn in paper_figures(section.rankings, section.title, titled=True):
            name = f"{section.name}{drawn.name}"
            out |= {f"{name}.svg": drawn.svg, f"{name}.pdf": drawn.pdf, f"{name}.csv": drawn.data_csv}
            pages.append(_page(name, drawn))
    if not out:
        raise ReportError(
            "nothing to draw: no finished cell has both a prune time and a perplexity, or layers"
        )
    out["figures.md"] = "\n".join(pages).encode()
    return out


def paper_figures(rankings: Sequence[Ranking], title: str, *, titled: bool) -> list[PaperFigure]:
    """Draws the figures of one setting.

    Args:
        rankings: all rankings of the setting.
        title: title of the setting, added to every figure's title.
        titled: whether to draw the title too; leave it out if a caption already has it.
    """
    return [drawn for figure in figures(rankings) for drawn in _parts(figure, title, titled=titled)]


def _parts(figure: Figure, setting: str, *, titled: bool) -> list[PaperFigure]:
    spec = specification(figure.chart)
    panels: list[str] = spec["facet"]["sort"]
    title = f"{visible(figure.title)} ({setting})"
    lines = textwrap.wrap(title, TITLE_CHARACTERS) if titled else []
    rows = max(1, PANELS_HEIGHT // (_panel_height(figure, spec) + AROUND))
    # Names may be wider than a panel: try fewer panels side by side then.
    for columns in range(min(figure.narrow_columns, len(panels)), 0, -1):
        chunks = [panels[i : i + columns * rows] for i in range(0, len(panels), columns * rows)]
        fitted = [
            _fitted(_of_panels(spec, c), min(columns, len(c)), lines, figure.narrow_height) for c in chunks
        ]
        if all(_svg_width(svg) <= COLUMN + SLACK for _, svg in fitted):
            break
    drawn = []
    for place, (narrow, svg) in enumerate(fitted, 1):
        several = len(chunks) > 1
        part = f"Part {place} of {len(chunks)}; linear axes of two parts may differ." if several else ""
        name = f"{figure.name}-{place}" if several else figure.name
        pdf = vl_convert.vegalite_to_pdf(narrow)
        drawn.append(PaperFigure(figure, name, title, part, _in_points(svg), pdf))
    return drawn


def _panel_height(figure: Figure, spec: dict[str, Any]) -> int:
    """Height of a panel in points; if each method has a row, it depends on the number of rows."""
    height = spec["spec"]["height"]
    return (
        round(_row_height(height) * _n_rows(spec["spec"]))
        if isinstance(height, dict)
        else figure.narrow_height
    )


def _row_height(height: dict[str, float]) -> float:
    """Height of a row, reduced like the font size compared with the page."""
    return 0.6 * height["step"]


def _n_rows(view: dict[str, Any]) -> int:
    """Number of values on the axis of the rows."""
    scale = view.get("encoding", {}).get("y", {}).get("scale", {})
    if scale:
        return len(scale["domain"])
    return max((_n_rows(layer) for layer in view.get("layer", [])), default=1)


def _of_panels(spec: dict[str, Any], panels: Sequence[str]) -> dict[str, Any]:
    """Returns the chart with these panels only."""
    field = spec["facet"]["field"]
    datasets = {
        name: [row for row in rows if row.get(field) in panels] for name, rows in spec["datasets"].items()
    }
    return {**spec, "facet": {**spec["facet"], "sort": list(panels)}, "datasets": datasets}


def _fitted(
    spec: dict[str, Any], columns: int, title: Sequence[str], height: int
) -> tuple[dict[str, Any], str]:
    """Returns the chart as wide as a column of a paper, as far as its texts allow, and its SVG."""
    spec = json.loads(_with_colors(json.dumps(spec, ensure_ascii=False)).translate(_NOT_IN_XML))
    _shrink(spec["spec"])
    spec["config"] = _THEME
    spec["columns"] = columns
    if columns == 1:
        spec["facet"]["header"]["labelLimit"] = LONGEST_NAME
    if title:
        lines = [line.translate(_NOT_IN_XML) for line in title]
        spec["title"] = {"text": lines, "anchor": "start", "fontSize": 8, "fontWeight": "bold"}
    page_height = spec["spec"]["height"]
    spec["spec"]["height"] = {"step": _row_height(page_height)} if isinstance(page_height, dict) else height
    width = COLUMN / columns - 40
    # Axes and legends take the width they need; two rounds give the panels the rest.
    for _ in range(3):
        spec["spec"]["width"] = width
        svg: str = vl_convert.vegalite_to_svg(spec)
        width = max(24.0, width + (COLUMN - _svg_width(svg)) / columns)
    return spec, svg


def _in_points(svg: str) -> bytes:
    sized = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r'\1 width="\2pt" height="\3pt"', svg, count=1
    )
    return sized.encode()


def _shrink(view: dict[str, Any]) -> None:
    """Shrinks the marks like the panels."""
    for layer in view.get("layer", []):
        _shrink(layer)
    mark = view.get("mark")
    if isinstance(mark, dict):
        sizes = _MARKS.get(mark["type"], {})
        mark |= {
            name: share * mark[name]
            for name, share in sizes.items()
            if isinstance(mark.get(name), (int, float))
        }
        if isinstance(mark.get("dx"), dict):
            mark |= _BESIDE


def _svg_width(svg: str) -> float:
    found = re.search(r'<svg[^>]*? width="([\d.]+)"', svg)
    assert found is not None, "vl-convert draws an SVG without a width"
    return float(found[1])


def _with_colors(text: str) -> str:
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: _palette().get(match[1], match[0]), text)


@lru_cache(maxsize=1)
def _palette() -> dict[str, str]:
    """The page's colours for light mode, chosen to be distinguishable with every kind of colour vision."""
    style = files("reports").joinpath("templates/style.css").read_text(encoding="utf-8")
    light = style[style.index(":root {") : style.index("}")]
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6});", light))


def _page(name: str, drawn: PaperFigure) -> str:
    table = markdown_table(frame_table(drawn.figure.data, drawn.title))
    title, note = markdown(drawn.title), markdown(f"{drawn.figure.note} {drawn.part}")
    return f"## {title}\n\n![{title}]({name}.svg)\n\n{note}\n\n{table}\n"


_NOT_IN_XML = {code: f"U+{code:04X}" for code in (*range(0xD800, 0xE000), 0xFFFE, 0xFFFF)}
"""Characters that a page can show but an SVG cannot; control characters are already escaped."""
_MARKS: dict[str, dict[str, float]] = {
    "text": {"fontSize": 0.6, "dx": 0.6},
    "point": {"size": 0.35},
    "rule": {"strokeWidth": 0.55},
    "line": {"strokeWidth": 0.6},
    "bar": {"strokeWidth": 0.5},
}
"""Factors for the sizes on the page."""
_BESIDE = {"dx": {"expr": "5 * datum.side"}, "dy": -4}
"""Offsets of a text next to a point."""
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
        "labelLimit": 88,
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
