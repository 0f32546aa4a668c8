"""What each part of a recipe adds to the recipes it was added to, one panel per part."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.chapters.parts import change
from reports.charts.drawing import Figure, Range, first_panels, panels
from reports.charts.rows import first_rows, interval_rows, row_name
from reports.rankings.additions import Addition, additions
from reports.rankings.ranking import Ranking
from reports.wording import interval, pattern_name, visible


def change_by_part(rankings: Sequence[Ranking]) -> Figure | None:
    """Draws the change of perplexity on the first text in per cent; a panel per part and pattern."""
    if not rankings[0].setting.protocols:
        return None
    ranked = rankings[0].setting.protocols[0]
    found = [addition for addition in additions(rankings) if addition.protocol == ranked]
    if not found:
        return None
    several = len({addition.pattern for addition in found}) > 1
    data = pd.DataFrame([_row(addition, several) for addition in found])
    drawn, kept, left_out = first_panels(data)
    drawn, names, no_row = first_rows(drawn)
    x = Range.of([0.0, *drawn["value"], *drawn["low"], *drawn["high"]])
    room = 0.04 * (x.high - x.low) or 1.0
    across = alt.X(
        "value:Q",
        title="change of perplexity, %",
        scale=alt.Scale(domain=[x.low - room, x.high + room], zero=False, nice=False),
        axis=alt.Axis(tickCount=4),
    )
    tooltip = [
        alt.Tooltip("method:N", title="added to"),
        alt.Tooltip("value:Q", title="change, %", format="+.1f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("perplexity:N"),
    ]
    return Figure(
        name="parts",
        title=_title(found),
        note=(
            f"Perplexity on {visible(ranked.name)} with the part over that without it, everything else equal "
            "(bars: paired 95 % interval over windows, losses averaged over calibration seeds). Left of the "
            "dashed line the part helps; rows are the recipes that it was added to." + left_out + no_row
        ),
        chart=panels(interval_rows(drawn, kept, names, across, mark=0.0, tooltip=tooltip), kept, columns=3),
        data=data[["part", "label", "pattern", "before", "after", "value", "low", "high"]].rename(
            columns={"label": "added to", "value": "change %", "low": "low %", "high": "high %"}
        ),
        panel_width=190,
    )


def _row(addition: Addition, several: bool) -> dict[str, object]:
    ratio = addition.ratio
    assert ratio.value is not None
    low, high = (None if end is None else 100 * (end - 1) for end in (ratio.low, ratio.high))
    pattern = pattern_name(addition.pattern)
    return {
        "panel": f"{addition.title}\n{pattern}" if several else addition.title,
        "part": addition.title,
        "pattern": pattern,
        "label": addition.base,
        "method": row_name(addition.base),
        "family": visible(addition.record.cell.method),
        "place": addition.before,
        "before": addition.before,
        "after": addition.after,
        "value": 100 * (ratio.value - 1),
        "low": low,
        "high": high,
        "interval": interval(low, high, 1),
        "perplexity": f"{addition.before:,.2f} to {addition.after:,.2f}",
    }


def _title(found: Sequence[Addition]) -> str:
    """Names the part that lowers perplexity most."""
    best = min(found, key=lambda addition: addition.ratio.value or 0.0)
    what = f"adding {best.title} to {best.base} ({pattern_name(best.pattern)})"
    ratio = best.ratio.value or 0.0
    if ratio >= 1:
        return f"No part lowers perplexity; {what} changes it by {change(ratio)}"
    return f"Perplexity falls most by {what}: {change(ratio)}"


__all__ = ["change_by_part"]
