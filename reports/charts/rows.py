"""Names of methods that hold over patterns, and figures that give every method a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from reports.charts.drawing import dense_line, family_color, family_shape
from reports.rankings.ranking import Ranking, distinct_labels
from reports.wording import counted

ONE_LINE, TWO_LINES = 22, 30
"""Height of a row, in pixels, by how many lines its name has."""
MOST_ROWS = 22
"""Rows that are drawn: a panel of more of them does not fit a screen, nor a page of a paper."""


def names_over_patterns(rankings: Sequence[Ranking]) -> dict[str, str]:
    """A name for every cell, the same at every pattern for the same configuration.

    A ranking's labels tell apart what it holds: a method that was run with three seeds at one pattern and
    with one at another would have two names, and be two lines.
    """
    entries = [(r.pattern, e) for r in rankings for e in r.entries]
    configured = [e.record.cell.model_copy(update={"pattern": None}).digest for _, e in entries]
    firsts = {digest: e.record for digest, (_, e) in reversed(list(zip(configured, entries, strict=True)))}
    named = dict(zip(firsts, distinct_labels(list(firsts.values())), strict=True))
    if len(set(named.values())) < len(named):
        return {e.cell: e.label for _, e in entries}
    return {e.cell: named[digest] for digest, (_, e) in zip(configured, entries, strict=True)}


def row_name(label: str) -> str:
    """A method's label with its settings on a line of their own, as an axis has no room for both."""
    return label.replace(" (", "\n(", 1)


def mean_places(placed: Iterable[tuple[str, float]]) -> list[str]:
    """Names by the mean of their places, the lowest first; equal ones as they come."""
    places: dict[str, list[float]] = {}
    for name, place in placed:
        places.setdefault(name, []).append(place)
    return sorted(places, key=lambda name: sum(places[name]) / len(places[name]))


def first_rows(drawn: pd.DataFrame, row: str = "method") -> tuple[pd.DataFrame, list[str], str]:
    """What is drawn, its rows in the order of `mean_places`, and a sentence about those left out."""
    names = mean_places(zip(drawn[row], drawn["place"], strict=True))
    left = len(names) - MOST_ROWS
    said = f" {counted(left, 'further method')} not drawn: see the table beneath." if left > 0 else ""
    return drawn[drawn[row].isin(names[:MOST_ROWS])], names[:MOST_ROWS], said


def row_axis(names: list[str]) -> alt.Y:
    """The axis of the rows, the first of `names` on top.

    The names are the scale's domain: a sort order would become an expression of foreign text.
    """
    axis = alt.Axis(
        labelExpr="split(datum.value, '\\n')",
        # The first of two lines stands on the row's middle, the second hangs from it.
        labelBaseline=cast(
            Any,
            {"condition": {"test": "indexof(datum.value, '\\n') >= 0", "value": "bottom"}, "value": "middle"},
        ),
        title=None,
        ticks=False,
        domain=False,
    )
    return alt.Y("method:N", scale=alt.Scale(domain=names), axis=axis)


def row_height(names: list[str]) -> alt.Step:
    """Of a panel: every row as high as the longest name needs."""
    return alt.Step(TWO_LINES if any("\n" in name for name in names) else ONE_LINE)


def interval_rows(
    drawn: pd.DataFrame,
    kept: list[str],
    names: list[str],
    across: alt.X,
    *,
    mark: float,
    tooltip: Sequence[alt.Tooltip],
) -> alt.LayerChart:
    """A point with its interval per row, beside a dashed line.

    Args:
        drawn: columns `panel`, `method`, `family`, `value`, `low`, `high` and those of the tooltip.
        kept: the panels.
        names: of the rows, the first on top.
        across: the axis of `value`.
        mark: where the dashed line stands.
        tooltip: what a point says when it is pointed at.
    """
    said = (str(column["shorthand"]).removesuffix(":N").removesuffix(":Q") for column in tooltip)
    columns = list(dict.fromkeys(["panel", "method", "family", "value", "low", "high", *said]))
    rows = pd.concat([drawn[columns], pd.DataFrame({"panel": kept, "dense": mark})])
    place = (
        alt.Chart()
        .transform_filter("isValid(datum.value)")
        .encode(y=row_axis(names), color=family_color(drawn["family"], has_legend=False))
    )
    points = place.mark_point(filled=True, size=56, opacity=1).encode(
        x=across, shape=family_shape(drawn["family"], has_legend=False), tooltip=list(tooltip)
    )
    whiskers = place.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=across["title"]), x2="high:Q")
    return alt.LayerChart(layer=[dense_line(x="dense:Q"), whiskers, points], data=rows).properties(
        height=row_height(names)
    )
