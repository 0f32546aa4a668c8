"""How figures are drawn: colours and shapes of method families, scales, ticks and panels.

Colour means the method family and nothing else; shape repeats it for those who do not see the colour. Panels
are facets of one chart, and a page may give them another width and number of columns.
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
"""Families with a colour of their own; further ones take the remaining colours in the order of names."""
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
"""A range turns logarithmic where its largest value is this many times its smallest."""
MOST_PANELS = 24
"""Panels that are drawn: more of them nobody looks through, and each costs its share of the page."""


@dataclass(frozen=True)
class Figure:
    """A chart with what belongs to it.

    Attributes:
        name: a word for its anchor.
        title: what is seen, in a sentence.
        note: axes, protocol, n, uncertainty and which way is better.
        chart: a faceted chart, with the most panels side by side.
        data: what is drawn, as a table to read.
        panel_width: the narrowest a panel may become, in pixels.
        tab: the short word on its tab, where several figures share a place.
        narrow_columns: the most panels side by side in a column of a paper.
        narrow_height: of a panel there, in points; where each method has a row, the rows say it.
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
    """What an axis has to span."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Range:
        """The range of the finite ones among `values`, of which there is at least one."""
        finite = [v for v in values if v is not None and math.isfinite(v)]
        return cls(min(finite), max(finite))

    @property
    def is_log(self) -> bool:
        """Whether a linear axis would crowd most values at its foot."""
        return self.low > 0 and self.high / self.low >= WIDE_RANGE

    @property
    def scale(self) -> alt.Scale:
        """The scale of the axis; a linear one holds zero."""
        if self.is_log:
            return alt.Scale(type="log", domain=[self.low / 1.3, self.high * 1.3], nice=False)
        # Given, not left to the library: it warns of a layer that has nothing to draw in a panel.
        ends = [min(0.0, self.low), max(0.0, self.high) or 1.0]
        return alt.Scale(type="linear", domain=ends, nice=True)

    @property
    def close_scale(self) -> alt.Scale:
        """The same without the zero, for points that differ little beside their distance from it."""
        if self.is_log:
            return self.scale
        room = 0.08 * (self.high - self.low) or 0.05 * abs(self.high) or 1.0
        return alt.Scale(type="linear", domain=[self.low - room, self.high + room], zero=False, nice=False)

    @property
    def axis(self) -> alt.Axis:
        """The axis, with round ticks on a log scale: the library's own crowd a small panel."""
        if not self.is_log:
            return alt.Axis(tickCount=4)
        low, high = self.low / 1.3, self.high * 1.3
        decades = math.log10(high / low)
        steps = (1, 2, 5) if decades < 1.8 else (1, 3) if decades < 2.6 else (1,)
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [round(step * 10.0**e, 12) for e in exponents for step in steps]
        return alt.Axis(values=[t for t in ticks if low <= t <= high], format="~g")


def log_note(ranges: dict[str, Range]) -> str:
    """Says which axes are logarithmic."""
    logged = [name for name, values in ranges.items() if values.is_log]
    return f" Log scale: {listed(logged)}." if logged else ""


def first_panels(data: pd.DataFrame, by: str = "panel") -> tuple[pd.DataFrame, list[str], str]:
    """The rows whose panels are drawn, these panels, and a sentence for the note about the others."""
    order = list(dict.fromkeys(data[by]))
    kept, left = order[:MOST_PANELS], len(order) - MOST_PANELS
    verb = "is" if left == 1 else "are"
    said = (
        f" {counted(left, 'further panel')} {verb} not drawn; the table beneath has all." if left > 0 else ""
    )
    return data[data[by].isin(kept)], kept, said


def panels(chart: alt.Chart | alt.LayerChart, order: Sequence[str], *, columns: int) -> alt.FacetChart:
    """A panel a value of `panel`; line breaks in the values break the panels' titles.

    Args:
        chart: what every panel shows of its own rows.
        order: the values, in the order of the panels.
        columns: the most panels side by side.
    """
    header = alt.Header(title=None, labelExpr="split(datum.value, '\\n')", labelLimit=0)
    facet = alt.Facet("panel:N", sort=list(order), header=header)
    return chart.facet(facet=facet, columns=min(columns, len(order)))


def dense_line(**encoding: str) -> alt.Chart:
    """Where the dense model stands: a dashed line across every panel."""
    line: alt.Chart = alt.Chart().mark_rule(strokeDash=[4, 3], strokeWidth=1, color="var(--muted)")
    return line.encode(**encoding)


def family_color(families: Iterable[str], *, has_legend: bool = True) -> alt.Color:
    """The colour of a family, the same in every figure of a page.

    Args:
        families: those that are drawn.
        has_legend: false where every mark stands beside the name of its method.
    """
    shown, places = _families(families)
    colors = [f"var(--family-{place % N_COLORS + 1})" for place in places]
    legend = _legend(shown) if has_legend else None
    return alt.Color("family:N", scale=alt.Scale(domain=shown, range=colors), legend=legend)


def family_shape(families: Iterable[str], *, has_legend: bool = True) -> alt.Shape:
    """The shape of a family, which repeats its colour for those who do not see it."""
    shown, places = _families(families)
    shapes = [SHAPES[place % len(SHAPES)] for place in places]
    legend = _legend(shown) if has_legend else None
    return alt.Shape("family:N", scale=alt.Scale(domain=shown, range=shapes), legend=legend)


def specification(chart: alt.FacetChart, *, validate: bool = True) -> dict[str, Any]:
    """The chart as JSON can hold it.

    Altair writes NaN as null in columns of numbers only; one without any number is of objects.

    Args:
        chart: what is drawn.
        validate: whether it is held against Vega-Lite's schema.
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
    held = set(families)
    order = [*FAMILIES, *sorted(held - set(FAMILIES))]
    shown = [family for family in order if family in held]
    return shown, [order.index(family) for family in shown]


def _legend(shown: list[str]) -> alt.Legend | None:
    return alt.Legend(title=None) if len(shown) > 1 else None
