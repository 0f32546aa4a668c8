"""Quality against sparsity: how close each method stays to the dense model as more weights are pruned."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.drawing import (
    Figure,
    Range,
    dense_line,
    family_color,
    family_shape,
    first_panels,
    log_note,
    panels,
)
from reports.charts.rows import names_over_patterns
from reports.rankings.ranking import Entry, Ranking
from reports.wording import counted, decimal, interval, listed, pattern_name, target_sparsity, visible

DASHES = ([1, 0], [5, 3], [1.5, 2], [7, 2, 1.5, 2])
"""Dash patterns of the variants of one family, in their order."""
MOST_DASHED = 8
"""Maximum number of variants in a legend; if there are more, only the tooltips name them."""
MOST_TIED = 2
"""Maximum number of methods tied with the best that the title names; it only counts the rest."""


def quality_against_sparsity(rankings: Sequence[Ranking]) -> Figure | None:
    """Draws perplexity by pattern, divided by dense if there is a dense model; one panel per protocol."""
    has_dense = any(e.scores and e.scores[0].to_dense for r in rankings for e in r.entries)
    placed = _Places(rankings)
    names = names_over_patterns(rankings)
    rows = [
        row
        for r in rankings
        for e in r.entries
        for row in _rows(r, e, names[e.cell], placed, over_dense=has_dense)
    ]
    data = pd.DataFrame(rows)
    if data.empty or data["pattern"].nunique() < 2:
        return None
    drawn, kept, left_out = first_panels(data)
    y = Range.of([*drawn["y"], *drawn["low"], *drawn["high"], *([1.0] if has_dense else [])])
    lines = pd.DataFrame({"panel": kept, "dense": 1.0})
    style = _styles(data)
    drawn = drawn.assign(style=drawn["method"].map(style))
    chart = _chart(pd.concat([drawn, lines]) if has_dense else drawn, drawn, placed, y, style)
    what = "× dense" if has_dense else "perplexity"
    bars = (
        f"bars: {'paired ' if has_dense else ''}95 % interval" if data["low"].notna().any() else "no interval"
    )
    multiple = " as a multiple of the dense model's on the same windows" if has_dense else ""
    return Figure(
        name="quality",
        title=_title(data, over_dense=has_dense),
        note=(
            f"Perplexity{multiple} ({bars}; n in the panel's title) against {placed.about}. Lower is better"
            + ("; the dashed line is dense." if has_dense else ".")
            + placed.note
            + log_note({"perplexity": y})
            + left_out
        ),
        chart=panels(chart, kept, columns=2),
        data=_table(data, what),
        panel_width=280,
        tab="Sparsity",
        narrow_columns=1,
        narrow_height=130,
    )


class _Places:
    """Positions of patterns on the axis: by target sparsity if unstructured ones differ, else by name."""

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        patterns = [r.pattern for r in rankings if r.entries and r.pattern is not None]
        self.order = list(dict.fromkeys(patterns))
        unstructured = {target_sparsity(p) for p in self.order if ":" not in p}
        self.by_sparsity = len(unstructured - {None}) > 1
        self.has_points = self.by_sparsity and any(":" in p for p in self.order)

    def of(self, pattern: str) -> float | str | None:
        """Returns its position; None if it has none."""
        share = target_sparsity(pattern)
        if not self.by_sparsity:
            return pattern_name(pattern)
        return None if share is None else round(100 * share, 6)

    @property
    def about(self) -> str:
        return "the target sparsity" if self.by_sparsity else "the sparsity pattern"

    @property
    def note(self) -> str:
        if not self.by_sparsity:
            return " Lines only connect a method's points; values between two patterns were not measured."
        if self.has_points:
            return " Lines connect unstructured patterns; N:M patterns are the hollow points."
        return ""


def _rows(
    ranking: Ranking, entry: Entry, name: str, placed: _Places, *, over_dense: bool
) -> list[dict[str, object]]:
    if ranking.pattern is None or (x := placed.of(ranking.pattern)) is None:
        return []
    rows: list[dict[str, object]] = []
    for protocol, score in zip(ranking.setting.protocols, entry.scores, strict=True):
        shown = score.to_dense if over_dense else score
        if shown is None or shown.value is None or score.value is None:
            continue
        rows.append(
            {
                "panel": f"{visible(protocol.name)}\nn = {counted(protocol.n, 'window')}",
                "protocol": visible(protocol.name),
                "pattern": pattern_name(ranking.pattern),
                "method": name,
                "family": visible(entry.record.cell.method),
                "x": x,
                "place": placed.order.index(ranking.pattern),
                "joined": int(not placed.by_sparsity or ":" not in ranking.pattern),
                "y": shown.value,
                "low": shown.low,
                "high": shown.high,
                "interval": interval(shown.low, shown.high) or "none",
                "perplexity": score.value,
                "mark": score.mark,
            }
        )
    return rows


def _styles(data: pd.DataFrame) -> dict[str, str]:
    """Maps a method to the name of its dash: its label if its family has several variants, else empty."""
    variants = {family: list(dict.fromkeys(rows["method"])) for family, rows in data.groupby("family")}
    return {m: m if len(methods) > 1 else "" for methods in variants.values() for m in methods}


def _dash(data: pd.DataFrame, style: dict[str, str]) -> alt.StrokeDash:
    place: dict[str, int] = {}
    for _, rows in data.groupby("family"):
        place |= {method: i for i, method in enumerate(dict.fromkeys(rows["method"])) if style[method]}
    legend = None
    if 1 < len(place) <= MOST_DASHED:
        legend = alt.Legend(
            title=None,
            values=list(place),
            orient="bottom",
            columns=1,
            symbolSize=200,
            rowPadding=0,
            labelLimit=210,
        )
    dashes = [list(DASHES[i % len(DASHES)]) for i in place.values()]
    return alt.StrokeDash(
        "style:N", scale=alt.Scale(domain=[*place, ""], range=[*dashes, [1, 0]]), legend=legend
    )


def _chart(
    rows: pd.DataFrame, drawn: pd.DataFrame, placed: _Places, y: Range, style: dict[str, str]
) -> alt.LayerChart:
    columns = ["panel", "pattern", "method", "family", "x", "place", "joined", "y", "low", "high"]
    extra = [name for name in ("interval", "style", "dense") if name in rows.columns]
    base = alt.Chart()
    if placed.by_sparsity:
        x = alt.X(
            "x:Q",
            title="target sparsity, %",
            scale=alt.Scale(zero=False, nice=False, padding=14),
            axis=alt.Axis(values=sorted(set(drawn["x"])), labelOverlap=True, grid=False),
        )
    else:
        names = [pattern_name(p) for p in placed.order]
        axis = alt.Axis(labelAngle=0, labelExpr="split(datum.value, ' ')")
        x = alt.X("x:N", title=None, scale=alt.Scale(domain=names, type="point", padding=0.25), axis=axis)
    up = alt.Y("y:Q", title=_y_title(rows), scale=y.close_scale, axis=y.axis)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("pattern:N"),
        alt.Tooltip("y:Q", title=_y_title(rows), format=",.4~g"),
        alt.Tooltip("interval:N", title="95 % interval"),
    ]
    measured = base.transform_filter("isValid(datum.y)")
    place = measured.encode(x=x, color=family_color(drawn["family"]))
    shape = family_shape(drawn["family"])
    lines = (
        measured.transform_filter("datum.joined == 1")
        .mark_line(strokeWidth=1.5)
        .encode(
            x=x,
            y=up,
            color=family_color(drawn["family"]),
            strokeDash=_dash(drawn, style),
            detail="method:N",
            order="place:Q",
        )
    )
    whiskers = place.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=_y_title(rows)), y2="high:Q")
    points = place.mark_point(filled=True, size=64, opacity=1).encode(y=up, shape=shape, tooltip=tooltip)
    layers = [lines, whiskers, points]
    if placed.has_points:
        hollow = measured.transform_filter("datum.joined == 0").mark_point(
            filled=True, size=18, opacity=1, color="var(--paper)"
        )
        layers.append(hollow.encode(x=x, y=up, shape=shape, tooltip=tooltip))
    if "dense" in rows.columns:
        layers.insert(0, dense_line(y="dense:Q"))
    return alt.LayerChart(layer=layers, data=rows[[*columns, *extra]]).properties(height=260)


def _y_title(rows: pd.DataFrame) -> str:
    return "perplexity, × dense" if "dense" in rows.columns else "perplexity"


def _table(data: pd.DataFrame, what: str) -> pd.DataFrame:
    columns = ["protocol", "pattern", "method", "y"]
    columns += ["low", "high"] if data["low"].notna().any() else []
    columns += ["perplexity"] if what != "perplexity" else []
    return data[columns].rename(columns={"y": what})


def _title(data: pd.DataFrame, *, over_dense: bool) -> str:
    """Names the lowest perplexity on the first protocol, at the least and at the most sparse pattern."""
    first = data[data["protocol"] == data["protocol"].iloc[0]]
    patterns = list(dict.fromkeys(first.sort_values("place", kind="stable")["pattern"]))
    ends = [first[first["pattern"] == p] for p in (patterns[0], patterns[-1])]
    best = [rows.iloc[int(rows["perplexity"].argmin())] for rows in ends]
    values = [
        f"{decimal(float(row['y']))}{unit} at {row['pattern']}{_tied(rows)}"
        for row, rows, unit in zip(best, ends, (" times dense" if over_dense else "", ""), strict=True)
    ]
    names = [str(row["method"]) for row in best]
    if names[0] == names[1]:
        return f"{names[0]} has the lowest perplexity: {values[0]}, and {values[1]}"
    return f"{names[0]} has the lowest perplexity, {values[0]}, and {names[1]}, {values[1]}"


def _tied(rows: pd.DataFrame) -> str:
    """Names the methods that the windows do not distinguish from the best of one pattern."""
    tied = list(rows.loc[rows["mark"] == "tied", "method"])
    if not tied:
        return ""
    more = [counted(len(tied) - MOST_TIED, "other")] if len(tied) > MOST_TIED else []
    return f" (tied with {listed([*tied[:MOST_TIED], *more])})"


__all__ = ["quality_against_sparsity"]
