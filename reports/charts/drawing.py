"""How figures are drawn: colours and shapes of method families, scales, ticks and panels.

Colour always means the method family; shape repeats it for readers who do not see the colour. Panels are
facets of one chart; a page may change their width and number of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from reports.wording import counted, listed

FAMILIES = ("llm-barber", "sparsegpt", "wanda", "magnitude")
"""Families with a fixed colour; others take the remaining colours in alphabetical order."""
N_COLORS = 8
SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-left",
    "triangle-right",
)
WIDE_RANGE = 20
"""A range becomes logarithmic if its largest value is at least this many times its smallest."""
MOST_PANELS = 24
"""Maximum number of panels drawn: nobody looks through more, and each one makes the page larger."""


@dataclass(frozen=True)
class Figure:
    """A chart with its title, note and data.

    Attributes:
        name: a word for its anchor.
        title: the finding that the chart shows, as a sentence.
        note: axes, protocol, n, uncertainty and which direction is better.
        chart: a faceted chart with the maximum number of panels side by side.
        data: the drawn values as a readable table.
        panel_width: minimum width of a panel, in pixels.
        tab: the short word on its tab, if several figures share a place.
        narrow_columns: maximum number of panels side by side in a column of a paper.
        narrow_height: height of a panel there, in points; if each method has a row, the rows determine it.
    """

    name: str
    title: str
    note: str
    chart: alt.FacetChart
    data: pd.DataFrame
    panel_width: int
    tab: str = ""
    narrow_columns: int = 2
    narrow_height: int = 70


@dataclass(frozen=True)
class Range:
    """The range of values that an axis has to span."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Range:
        """Returns the range of the finite `values`, at least one of which must be finite."""
        finite = [v for v in values if v is not None and math.isfinite(v)]
        return cls(min(finite), max(finite))

    @property
    def is_log(self) -> bool:
        """Whether a linear axis would crowd most values at its lower end."""
        return self.low > 0 and self.high / self.low >= WIDE_RANGE

    @property
    def scale(self) -> alt.Scale:
        """The scale of the axis; a linear scale includes zero."""
        if self.is_log:
            return alt.Scale(type="log", domain=[self.low / 1.3, self.high * 1.3], nice=False)
        # Set explicitly, because the library warns about layers that have nothing to draw in a panel.
        ends = [min(0.0, self.low), max(0.0, self.high) or 1.0]
        return alt.Scale(type="linear", domain=ends, nice=True)

    @property
    def close_scale(self) -> alt.Scale:
        """The scale without zero, for points whose differences are small compared with their values."""
        if self.is_log:
            return self.scale
        room = 0.08 * (self.high - self.low) or 0.05 * abs(self.high) or 1.0
        return alt.Scale(type="linear", domain=[self.low - room, self.high + room], zero=False, nice=False)

    @property
    def axis(self) -> alt.Axis:
        """The axis, with round ticks on a log scale, because the library's ticks crowd a small panel."""
        if not self.is_log:
            return alt.Axis(tickCount=4)
        low, high = self.low / 1.3, self.high * 1.3
        decades = math.log10(high / low)
        steps = (1, 2, 5) if decades < 1.8 else (1, 3) if decades < 2.6 else (1,)
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [round(step * 10.0**e, 12) for e in exponents for step in steps]
        return alt.Axis(values=[t for t in ticks if low <= t <= high], format="~g")


def log_note(ranges: dict[str, Range]) -> str:
    """Returns a sentence that lists the logarithmic axes; empty if there are none."""
    logged = [name for name, values in ranges.items() if values.is_log]
    return f" Log scale: {listed(logged)}." if logged else ""


def first_panels(data: pd.DataFrame, by: str = "panel") -> tuple[pd.DataFrame, list[str], str]:
    """Returns the rows of the drawn panels, these panels, and a sentence about the panels left out."""
    order = list(dict.fromkeys(data[by]))
    kept, left = order[:MOST_PANELS], len(order) - MOST_PANELS
    verb = "is" if left == 1 else "are"
    note = f" {counted(left, 'further panel')} {verb} not drawn; the table below has all." if left > 0 else ""
    return data[data[by].isin(kept)], kept, note


def panels(chart: alt.Chart | alt.LayerChart, order: Sequence[str], *, columns: int) -> alt.FacetChart:
    """Facets a chart by the values of `panel`; line breaks in a value break the title of its panel.

    Args:
        chart: drawn in every panel from the panel's rows.
        order: the values, in the order of the panels.
        columns: maximum number of panels side by side.
    """
    header = alt.Header(title=None, labelExpr="split(datum.value, '\\n')", labelLimit=0)
    facet = alt.Facet("panel:N", sort=list(order), header=header)
    return chart.facet(facet=facet, columns=min(columns, len(order)))


def dense_line(**encoding: str) -> alt.Chart:
    """Draws the value of the dense model as a dashed line across every panel."""
    line: alt.Chart = alt.Chart().mark_rule(strokeDash=[4, 3], strokeWidth=1, color="var(--muted)")
    return line.encode(**encoding)


def family_color(families: Iterable[str], *, has_legend: bool = True) -> alt.Color:
    """Returns the colour of the families, the same in every figure of a page.

    Args:
        families: the families that are drawn.
        has_legend: false if every mark is next to the name of its method.
    """
    shown, places = _families(families)
    colors = [f"var(--family-{place % N_COLORS + 1})" for place in places]
    legend = _legend(shown) if has_legend else None
    return alt.Color("family:N", scale=alt.Scale(domain=shown, range=colors), legend=legend)


def family_shape(families: Iterable[str], *, has_legend: bool = True) -> alt.Shape:
    """Returns the shape of the families, which repeats their colour for readers who do not see it."""
    shown, places = _families(families)
    shapes = [SHAPES[place % len(SHAPES)] for place in places]
    legend = _legend(shown) if has_legend else None
    return alt.Shape("family:N", scale=alt.Scale(domain=shown, range=shapes), legend=legend)


def specification(chart: alt.FacetChart, *, validate: bool = True) -> dict[str, Any]:
    """Returns the chart as a JSON-compatible dictionary.

    Altair writes NaN as null only in numeric columns; a column without any number has the dtype object.

    Args:
        chart: what is drawn.
        validate: whether to check it with Vega-Lite's schema.
    """
    spec: dict[str, Any] = chart.to_dict(validate=validate)
    spec["datasets"] = {
        name: [{key: _or_null(value) for key, value in row.items()} for row in rows]
        for name, rows in spec["datasets"].items()
    }
    return spec


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _families(families: Iterable[str]) -> tuple[list[str], list[int]]:
    present = set(families)
    order = [*FAMILIES, *sorted(present - set(FAMILIES))]
    shown = [family for family in order if family in present]
    return shown, [order.index(family) for family in shown]


def _legend(shown: list[str]) -> alt.Legend | None:
    return alt.Legend(title=None) if len(shown) > 1 else None
