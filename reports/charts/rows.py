"""Names of methods that are the same at every pattern, and figures with one row per method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from reports.charts.drawing import dense_line, family_color, family_shape
from reports.rankings.ranking import Ranking, distinct_labels
from reports.wording import counted

ONE_LINE, TWO_LINES = 22, 30
"""Height of a row in pixels, by the number of lines of its name."""
MOST_ROWS = 22
"""Maximum number of rows drawn: a panel with more does not fit a screen or a page of a paper."""


def names_over_patterns(rankings: Sequence[Ranking]) -> dict[str, str]:
    """Maps every cell to a name that is the same at every pattern for the same configuration.

    The labels of a ranking only distinguish its own entries: a method run with three seeds at one pattern and
    with one seed at another would get two names, and two lines.
    """
    entries = [(r.pattern, e) for r in rankings for e in r.entries]
    configured = [e.record.cell.model_copy(update={"pattern": None}).digest for _, e in entries]
    firsts = {digest: e.record for digest, (_, e) in reversed(list(zip(configured, entries, strict=True)))}
    named = dict(zip(firsts, distinct_labels(list(firsts.values())), strict=True))
    if len(set(named.values())) < len(named):
        return {e.cell: e.label for _, e in entries}
    return {e.cell: named[digest] for digest, (_, e) in zip(configured, entries, strict=True)}


def row_name(label: str) -> str:
    """Puts the settings of a label on a second line, because an axis has no room for one long line."""
    return label.replace(" (", "\n(", 1)


def mean_places(placed: Iterable[tuple[str, float]]) -> list[str]:
    """Sorts names by their mean place, the lowest first; ties keep their order."""
    places: dict[str, list[float]] = {}
    for name, place in placed:
        places.setdefault(name, []).append(place)
    return sorted(places, key=lambda name: sum(places[name]) / len(places[name]))


def first_rows(drawn: pd.DataFrame, row: str = "method") -> tuple[pd.DataFrame, list[str], str]:
    """Returns the drawn data, its rows in the order of `mean_places`, and a sentence about those left out."""
    names = mean_places(zip(drawn[row], drawn["place"], strict=True))
    left = len(names) - MOST_ROWS
    note = f" {counted(left, 'further method')} not drawn: see the table below." if left > 0 else ""
    return drawn[drawn[row].isin(names[:MOST_ROWS])], names[:MOST_ROWS], note


def row_axis(names: list[str]) -> alt.Y:
    """Returns the axis of the rows, the first of `names` on top.

    The names are the scale's domain, because a sort order would become an expression with foreign text.
    """
    axis = alt.Axis(
        labelExpr="split(datum.value, '\\n')",
        # The first of two lines ends at the middle of the row, the second hangs below it.
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
    """Returns the height of a row, the same for all, as the longest name needs."""
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
    """Draws one point with its interval per row, next to a dashed line.

    Args:
        drawn: columns `panel`, `method`, `family`, `value`, `low`, `high` and those of the tooltip.
        kept: the panels.
        names: names of the rows, the first on top.
        across: the axis of `value`.
        mark: position of the dashed line.
        tooltip: shown if the pointer is on a point.
    """
    shown = (str(column["shorthand"]).removesuffix(":N").removesuffix(":Q") for column in tooltip)
    columns = list(dict.fromkeys(["panel", "method", "family", "value", "low", "high", *shown]))
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
