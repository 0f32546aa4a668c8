"""Recovery per task: the share of the dense model's accuracy that a pruned model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from reports.charts.drawing import Figure, Range, first_panels, panels
from reports.charts.paired import PairedAnswers
from reports.charts.rows import first_rows, interval_rows
from reports.rankings.recovery import Recovery, recovery
from reports.wording import decimal, interval, listed

WIDEST = 200.0
"""Upper limit for drawn intervals, in per cent: one from a few right answers would crowd the others."""


def recovery_by_task(answers: Sequence[PairedAnswers]) -> Figure | None:
    """Draws pruned over dense accuracy in per cent, one panel per task and pattern, one row per method."""
    found = [(one, recovery(one.both, one.lost, one.gained)) for one in answers]
    data = pd.DataFrame([_row(one, kept) for one, kept in found if kept.value is not None])
    if data.empty:
        return None
    drawn, kept, left_out = first_panels(data)
    drawn, names, no_row = first_rows(drawn)
    widest = max(WIDEST, drawn["value"].max())
    cut = bool((drawn["high"] > widest).any())
    x = Range.of([100.0, *drawn["value"], *drawn["low"], *drawn["high"].clip(upper=widest)])
    chart = _chart(drawn, kept, x, names)
    columns = min(max(2, data["task"].nunique()), 4)
    bars = "bars: paired 95 % interval" if data["low"].notna().any() else "no interval"
    return Figure(
        name="recovery",
        title=_title(data),
        note=(
            "Recovery: accuracy of the pruned model over the dense model's on the same questions "
            f"({bars}; n in the panel's title). Higher is better; the dashed line is dense, 100 %; accuracy "
            "that guessing alone would reach is not subtracted."
            + _lacks(found)
            + (" Bars that leave a panel are cut." if cut else "")
            + left_out
            + no_row
        ),
        chart=panels(chart, kept, columns=columns),
        data=_table(data),
        panel_width=150,
        tab="Recovery",
    )


def _row(one: PairedAnswers, kept: Recovery) -> dict[str, object]:
    low, high = (None if end is None else 100 * end for end in (kept.low, kept.high))
    assert kept.value is not None
    return {
        **one.named,
        "value": 100 * kept.value,
        "low": low,
        "high": high,
        "interval": interval(low, high, 1) or kept.status,
        "right": f"{one.both + one.gained:,} instead of {one.both + one.lost:,}",
        "n_right": one.both + one.gained,
        "n_dense": one.both + one.lost,
        "n": one.n,
    }


def _chart(drawn: pd.DataFrame, kept: list[str], x: Range, names: list[str]) -> alt.LayerChart:
    room = 0.04 * (x.high - x.low) or 1.0
    across = alt.X(
        "value:Q",
        title="recovery, %",
        scale=alt.Scale(domain=[max(0.0, x.low - room), x.high + room], zero=False, nice=False, clamp=True),
        axis=alt.Axis(tickCount=4),
    )
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("value:Q", title="recovery, %", format=".1f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("right:N", title="right answers"),
    ]
    return interval_rows(drawn, kept, names, across, mark=100.0, tooltip=tooltip)


def _table(data: pd.DataFrame) -> pd.DataFrame:
    ends = ["low", "high"] if data["low"].notna().any() else []
    names = {"label": "method", "value": "recovery %", "low": "low %", "high": "high %"}
    names |= {"n_right": "right", "n_dense": "right dense"}
    columns = ["task", "pattern", "label", "value", *ends, "n_right", "n_dense", "n"]
    return data[columns].rename(columns=names)


def _lacks(found: Sequence[tuple[PairedAnswers, Recovery]]) -> str:
    """Explains why some have no bar, or no point."""
    no_bar = sorted({kept.status for _, kept in found if kept.value is not None and kept.low is None})
    no_point = sorted({kept.status for _, kept in found if kept.value is None})
    note = f" A point without a bar has no interval: {' or '.join(no_bar)}." if no_bar else ""
    return note + (f" Some have no point: {listed(no_point)}." if no_point else "")


def _title(data: pd.DataFrame) -> str:
    lowest, highest = (data.iloc[int(at)] for at in (data["value"].argmin(), data["value"].argmax()))
    several = data["pattern"].nunique() > 1

    def share(row: pd.Series[Any]) -> str:
        return f"{decimal(float(str(row['value'])), 0)} %"

    def described(row: pd.Series[Any]) -> str:
        where = f", {row['pattern']}" if several else ""
        return f"{share(row)} ({row['label']} on {row['task']}{where})"

    if len(data) == 1:
        return f"Accuracy kept: {described(lowest)} of dense"
    if share(lowest) == share(highest):
        return f"Accuracy kept: {share(lowest)} of dense in all {len(data):,} comparisons"
    return f"Accuracy kept: from {described(lowest)} to {described(highest)} of dense"


__all__ = ["recovery_by_task"]
