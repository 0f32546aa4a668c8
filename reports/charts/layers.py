"""Figures over decoder layers: weights moved, reduction of the block error, and sparsity."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.drawing import Figure, Range, family_color, first_panels, log_note, panels
from reports.rankings.frame import blocks_frame, modules_frame
from reports.rankings.ranking import Ranking
from reports.wording import pattern_name

VARIES = 0.005
"""Sparsity counts as varying over the layers above half a percentage point: less is rounding."""

BEFORE, AFTER = "before the rebuild", "after"


def ranked_blocks(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """Returns `blocks_frame` of every ranked record, with `method` and `panel` labelled as in its ranking."""
    entries = [(ranking, entry) for ranking in rankings for entry in ranking.entries]
    blocks = blocks_frame(modules_frame(entry.record for _, entry in entries))
    labels = {e.cell: e.label for _, e in entries}
    # A panel is too narrow for the whole label, so its settings are on a line of their own.
    titles = {e.cell: e.label.replace(" (", "\n(") + f"\n{pattern_name(r.pattern)}" for r, e in entries}
    cell = blocks["cell"]
    pattern = blocks["pattern"].map(pattern_name)
    return blocks.assign(
        family=blocks["method"], method=cell.map(labels), pattern=pattern, panel=cell.map(titles)
    )


def weights_moved(blocks: pd.DataFrame) -> Figure | None:
    """Draws the share of weights that a rebuild swapped, by decoder layer and block, a panel per variant."""
    data = blocks.dropna(subset=["moved"])
    if data.empty:
        return None
    data = data.assign(moved=100 * data["moved"])
    drawn, kept, left_out = first_panels(data)
    y = Range.of(drawn["moved"])
    chart = _block_lines(drawn, "moved", "weights moved, %", y)
    top = data.iloc[int(data["moved"].argmax())]
    return Figure(
        name="moved",
        title=(
            f"Most was moved by {top['method']} at {top['pattern']}: {top['moved']:.2g} % of the weights of "
            f"layer {top['layer']}, {top['block']}"
        ),
        note=(
            "Share of a block's weights that were swapped: each swap restores one pruned weight and prunes "
            "a kept one. An exact count, no interval; neither direction is better."
            + log_note({"share": y})
            + left_out
        ),
        chart=panels(chart, kept, columns=3),
        data=_by_layer(data, {"swaps": "swaps", "moved": "%"}),
        panel_width=150,
        tab="Weights moved",
    )


def block_error(blocks: pd.DataFrame) -> Figure | None:
    """Draws the block reconstruction error by decoder layer, before and after the rebuild."""
    data = blocks.dropna(subset=["error_before", "error_after"])
    if data.empty:
        return None
    drawn = data.assign(panel=data["panel"] + ", " + data["block"])
    drawn, kept, left_out = first_panels(drawn)
    y = Range.of([*drawn["error_before"], *drawn["error_after"]])
    fell = data["error_before"] - data["error_after"]
    fallen = int((fell > 0).sum())
    median = 100 * float((fell / data["error_before"]).median())
    half = f", by {median:.2g} % in the median block" if median > 0 else ""
    return Figure(
        name="error",
        title=f"The rebuild lowered the block error in {fallen:,} of {len(data):,} blocks{half}",
        note=(
            "Squared error of a block's output relative to the dense block's, on the first calibration batch "
            "(one batch, no interval), before the rebuild (dashed) and after it. Lower is better."
            + log_note({"error": y})
            + left_out
        ),
        chart=panels(_error_lines(drawn, y), kept, columns=4),
        data=_by_layer(data, {"error_before": "before", "error_after": "after"}),
        panel_width=150,
        tab="Block error",
    )


def layer_sparsity(blocks: pd.DataFrame) -> Figure | None:
    """Draws sparsity by decoder layer and block, for the variants in which it varies."""
    if blocks.empty:
        return None
    spread = blocks.groupby("panel")["sparsity"].agg(lambda s: s.max() - s.min())
    varied = spread[spread > VARIES]
    data = blocks[blocks["panel"].isin(varied.index)]
    if data.empty:
        return None
    data = data.assign(sparsity=100 * data["sparsity"])
    where = str(varied.idxmax()).replace("\n", " ")
    drawn, kept, left_out = first_panels(data)
    chart = _block_lines(drawn, "sparsity", "sparsity, %", Range.of(drawn["sparsity"]))
    return Figure(
        name="sparsity",
        title=f"Sparsity varies most, by {100 * varied.max():.1f} points, in {where}",
        note=(
            "Share of zeros in a block's weights. An exact count, no interval; neither direction is better."
            + left_out
        ),
        chart=panels(chart, kept, columns=3),
        data=_by_layer(data, {"sparsity": "%"}),
        panel_width=150,
        tab="Sparsity by layer",
    )


def _by_layer(data: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Returns one row per layer with each block's values side by side: `attention swaps`, `mlp swaps`..."""
    keys = ["cell", "method", "pattern", "layer"]
    parts = []
    for block, part in data.groupby("block", sort=False):
        names = {column: f"{block} {name}" for column, name in columns.items()}
        parts.append(part.set_index(keys)[list(columns)].rename(columns=names))
    return pd.concat(parts, axis=1).reset_index().drop(columns="cell")


def _error_lines(data: pd.DataFrame, spanned: Range) -> alt.LayerChart:
    """Draws the error before and after as lines, with the area between them filled."""
    rows = _series(data, {"error_before": "before", "error_after": "after"})
    base = alt.Chart()
    color = family_color(data["family"])
    x = alt.X("layer:Q", title="decoder layer", axis=_LAYER_AXIS)
    tooltip = [
        alt.Tooltip("layer:Q", title="decoder layer"),
        alt.Tooltip("before:Q", format=".4~g"),
        alt.Tooltip("after:Q", format=".4~g"),
        alt.Tooltip("change:Q", title="change, %", format="+.1f"),
    ]
    between = base.mark_area(opacity=0.15).encode(
        x=x, y=alt.Y("after:Q", title="block error", stack=None), y2="before:Q", color=color
    )
    lines = [
        base.mark_line(strokeWidth=1.75).encode(
            x=x,
            y=alt.Y(f"{field}:Q", title="block error", scale=spanned.scale, axis=spanned.axis),
            color=color,
            strokeDash=_dash(state, (AFTER, BEFORE)),
            tooltip=tooltip,
        )
        for field, state in (("before", "dashed"), ("after", "solid"))
    ]
    return (
        alt.LayerChart(layer=[between, *lines], data=rows)
        .transform_flatten(["layer", "before", "after"])
        .transform_calculate(
            change="100 * (datum.after / datum.before - 1)", dashed=f"'{BEFORE}'", solid=f"'{AFTER}'"
        )
        .properties(height=130)
    )


def _block_lines(data: pd.DataFrame, value: str, title: str, spanned: Range) -> alt.Chart:
    """Draws `value` over the layers, one line per block."""
    blocks = list(dict.fromkeys(data["block"]))
    chart: alt.Chart = (
        alt.Chart(_series(data, {value: "value"}))
        .transform_flatten(["layer", "value"])
        .mark_line(strokeWidth=1.75)
        .encode(
            x=alt.X("layer:Q", title="decoder layer", axis=_LAYER_AXIS),
            y=alt.Y("value:Q", title=title, scale=spanned.scale, axis=spanned.axis),
            color=family_color(data["family"]),
            strokeDash=_dash("block", blocks),
            tooltip=[
                alt.Tooltip("layer:Q", title="decoder layer"),
                alt.Tooltip("block:N"),
                alt.Tooltip("value:Q", title=title, format=".4~g"),
            ],
        )
        .properties(height=130)
    )
    return chart


def _series(data: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Returns a row per panel and block with lists that the chart flattens.

    This takes a tenth of the bytes of one row per point. Four digits are more than a screen shows.
    """
    rows = []
    for (panel, family, block), part in data.groupby(["panel", "family", "block"], sort=False):
        values = {name: [float(f"{v:.4g}") for v in part[column]] for column, name in columns.items()}
        rows.append(
            {"panel": panel, "family": family, "block": block, "layer": list(part["layer"]), **values}
        )
    return pd.DataFrame(rows)


def _dash(field: str, domain: Sequence[str]) -> alt.StrokeDash:
    """Distinguishes the values of `field` by dashes, the first one solid."""
    patterns = [[1, 0], [4, 3], [1, 2]]
    scale = alt.Scale(domain=list(domain), range=[patterns[i % 3] for i in range(len(domain))])
    # Long enough in the legend to show the dashes.
    return alt.StrokeDash(f"{field}:N", scale=scale, legend=alt.Legend(title=None, symbolSize=200))


_LAYER_AXIS = alt.Axis(tickMinStep=1, tickCount=4, grid=False)
