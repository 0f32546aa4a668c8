"""Figures over decoder layers: where weights moved, how the block error fell, where sparsity went."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.drawing import Figure, Range, family_color, log_note, panels
from reports.frame import blocks_frame, cell_id, modules_frame
from reports.ranking import Ranking
from reports.wording import pattern_name

VARIES = 0.005
"""Sparsity counts as varying over the layers from half a percentage point on: less is rounding."""


def ranked_blocks(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """`blocks_frame` of every ranked record; `method` and `panel` are what its ranking calls it."""
    entries = [(ranking, entry) for ranking in rankings for entry in ranking.entries]
    blocks = blocks_frame(modules_frame(entry.record for _, entry in entries))
    labels = {cell_id(e.record): e.label for _, e in entries}
    # A panel is too narrow for the whole label: its settings go on a line of their own.
    titles = {
        cell_id(e.record): e.label.replace(" (", "\n(") + f"\n{pattern_name(r.pattern)}" for r, e in entries
    }
    cell = blocks["cell"]
    pattern = blocks["pattern"].map(pattern_name)
    return blocks.assign(
        family=blocks["method"], method=cell.map(labels), pattern=pattern, panel=cell.map(titles)
    )


def weights_moved(blocks: pd.DataFrame) -> Figure | None:
    """Share of weights that a rebuild changed sides, by decoder layer and block, a panel a variant."""
    data = blocks.dropna(subset=["moved"])
    if data.empty:
        return None
    data = data.assign(moved=100 * data["moved"])
    y = Range.of(data["moved"])
    chart = _block_lines(data, "moved", "weights moved, %", y)
    top = data.iloc[int(data["moved"].argmax())]
    return Figure(
        name="moved",
        title=(
            f"Most was moved by {top['method']} at {top['pattern']}: {top['moved']:.2g} % of the weights of "
            f"layer {top['layer']}, {top['block']}"
        ),
        note=(
            "Share of a block's weights that changed sides: each swap brings one pruned weight back and "
            "removes a kept one. An exact count, no interval; neither way is better." + log_note({"share": y})
        ),
        chart=panels(chart, "panel", list(dict.fromkeys(data["panel"])), columns=3),
        data=_by_layer(data, {"swaps": "swaps", "moved": "%"}),
        panel_width=150,
        columns=3,
    )


def block_error(blocks: pd.DataFrame) -> Figure | None:
    """Block reconstruction error by decoder layer, before and after the rebuild."""
    data = blocks.dropna(subset=["error_before", "error_after"])
    if data.empty:
        return None
    before, after = "before the rebuild", "after"
    drawn = data.assign(panel=data["panel"] + "\n" + data["block"]).rename(
        columns={"error_before": before, "error_after": after}
    )
    y = Range.of([*drawn[before], *drawn[after]])
    # Folded in the chart, not here: one row for both states is half the bytes of the page.
    chart = _layer_lines(
        drawn[["panel", "family", "layer", before, after]], "error", "block error", y, dashes=(after, before)
    ).transform_fold([before, after], as_=["state", "error"])
    fell = int((data["error_after"] < data["error_before"]).sum())
    return Figure(
        name="error",
        title=f"The rebuild lowered the block error in {fell:,} of {len(data):,} blocks",
        note=(
            "Squared error of a block's output relative to the dense block's, on the first calibration batch "
            "(one batch, no interval). Lower is better." + log_note({"error": y})
        ),
        chart=panels(chart, "panel", list(dict.fromkeys(drawn["panel"])), columns=4),
        data=_by_layer(data, {"error_before": "before", "error_after": "after"}),
        panel_width=150,
        columns=4,
    )


def layer_sparsity(blocks: pd.DataFrame) -> Figure | None:
    """Sparsity by decoder layer and block, for the variants in which it varies."""
    if blocks.empty:
        return None
    spread = blocks.groupby("panel")["sparsity"].agg(lambda s: s.max() - s.min())
    varied = spread[spread > VARIES]
    data = blocks[blocks["panel"].isin(varied.index)]
    if data.empty:
        return None
    data = data.assign(sparsity=100 * data["sparsity"])
    where = str(varied.idxmax()).replace("\n", " ")
    chart = _block_lines(data, "sparsity", "sparsity, %", Range.of(data["sparsity"]))
    return Figure(
        name="sparsity",
        title=f"Sparsity varies most, by {100 * varied.max():.1f} points, in {where}",
        note="Share of zeros in a block's weights. An exact count, no interval; neither way is better.",
        chart=panels(chart, "panel", list(dict.fromkeys(data["panel"])), columns=3),
        data=_by_layer(data, {"sparsity": "%"}),
        panel_width=150,
        columns=3,
    )


def _by_layer(data: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """One row a layer, each block's values side by side: `attention swaps`, `mlp swaps`..."""
    keys = ["cell", "method", "pattern", "layer"]
    parts = []
    for block, part in data.groupby("block", sort=False):
        names = {column: f"{block} {name}" for column, name in columns.items()}
        parts.append(part.set_index(keys)[list(columns)].rename(columns=names))
    return pd.concat(parts, axis=1).reset_index().drop(columns="cell")


def _layer_lines(
    data: pd.DataFrame, value: str, title: str, spanned: Range, *, dashes: Sequence[str], by: str = "state"
) -> alt.Chart:
    """Lines of `value` over the layers; `by` tells them apart, the first of `dashes` solid."""
    patterns = [[1, 0], [4, 3], [1, 2]]
    chart: alt.Chart = (
        alt.Chart(data)
        .mark_line(strokeWidth=1.75)
        .encode(
            x=alt.X("layer:Q", title="decoder layer", axis=alt.Axis(tickMinStep=1, tickCount=4, grid=False)),
            y=alt.Y(f"{value}:Q", title=title, scale=spanned.scale, axis=spanned.axis),
            color=family_color(data["family"]),
            strokeDash=alt.StrokeDash(
                f"{by}:N",
                title=None,
                scale=alt.Scale(domain=list(dashes), range=[patterns[i % 3] for i in range(len(dashes))]),
            ),
            tooltip=[
                alt.Tooltip("layer:Q", title="decoder layer"),
                alt.Tooltip(f"{by}:N"),
                alt.Tooltip(f"{value}:Q", format=".4~g"),
            ],
        )
        .properties(height=130)
    )
    return chart


def _block_lines(data: pd.DataFrame, value: str, title: str, spanned: Range) -> alt.Chart:
    blocks = list(dict.fromkeys(data["block"]))
    drawn = data[["panel", "family", "layer", "block", value]]
    return _layer_lines(drawn, value, title, spanned, dashes=blocks, by="block")
