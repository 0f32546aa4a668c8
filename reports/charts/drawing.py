"""How figures are drawn: colours and shapes of method families, scales, ticks and panels.

Colour means the method family and nothing else; shape repeats it for those who do not see the colour. Panels
are facets of one chart, and a page may give them another width and number of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from reports.wording import listed

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


@dataclass(frozen=True)
class Figure:
    """A chart with what belongs to it.

    Attributes:
        name: a word for its anchor.
        title: what is seen, in a sentence.
        note: axes, protocol, n, uncertainty and which way is better.
        chart: a faceted chart.
        data: what is drawn, as a table to read.
        panel_width: the narrowest a panel may become, in pixels.
        columns: the most panels side by side.
    """

    name: str
    title: str
    note: str
    chart: alt.FacetChart
    data: pd.DataFrame
    panel_width: int
    columns: int


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
        """The scale of the axis; a linear one starts at zero."""
        if self.is_log:
            return alt.Scale(type="log", domain=[self.low / 1.3, self.high * 1.3], nice=False)
        return alt.Scale(type="linear", zero=True, nice=True)

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


def panels(
    chart: alt.Chart | alt.LayerChart, by: str, order: Sequence[str], *, columns: int
) -> alt.FacetChart:
    """A panel a value of `by`; line breaks in the values break the panels' titles."""
    header = alt.Header(title=None, labelExpr="split(datum.value, '\\n')", labelLimit=0)
    return chart.facet(facet=alt.Facet(f"{by}:N", sort=list(order), header=header), columns=columns)


def family_color(families: Iterable[str]) -> alt.Color:
    """The colour of a family, the same in every figure of a page."""
    shown, places = _families(families)
    colors = [f"var(--family-{place % N_COLORS + 1})" for place in places]
    return alt.Color("family:N", scale=alt.Scale(domain=shown, range=colors), legend=_legend(shown))


def family_shape(families: Iterable[str]) -> alt.Shape:
    """The shape of a family, which repeats its colour for those who do not see it."""
    shown, places = _families(families)
    shapes = [SHAPES[place % len(SHAPES)] for place in places]
    return alt.Shape("family:N", scale=alt.Scale(domain=shown, range=shapes), legend=_legend(shown))


def _families(families: Iterable[str]) -> tuple[list[str], list[int]]:
    held = set(families)
    order = [*FAMILIES, *sorted(held - set(FAMILIES))]
    shown = [family for family in order if family in held]
    return shown, [order.index(family) for family in shown]


def _legend(shown: list[str]) -> alt.Legend | None:
    return alt.Legend(title=None) if len(shown) > 1 else None
