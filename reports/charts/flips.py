"""Flips: answers that pruning changed, in both directions, because the two cancel in the accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.drawing import Figure, family_color, first_panels, panels
from reports.charts.paired import PairedAnswers
from reports.charts.rows import first_rows, row_axis, row_height
from reports.wording import decimal, interval


def flips_by_task(answers: Sequence[PairedAnswers]) -> Figure | None:
    """Draws answers turned wrong to the left, answers turned right to the right; a panel per task and
    pattern.
    """
    data = pd.DataFrame([_row(one) for one in answers])
    if data.empty or not (data["n_lost"] + data["n_gained"]).any():
        return None
    drawn, kept, left_out = first_panels(data)
    drawn, names, no_row = first_rows(drawn)
    columns = min(max(2, data["task"].nunique()), 4)
    return Figure(
        name="flips",
        title=_title(data),
        note=(
            "Share of all questions whose answer went from right to wrong (lost, full colour) and from "
            "wrong to right (gained, pale) compared with the dense model (lines: Wilson's 95 % interval; n "
            "in the panel's title). Fewer from right to wrong are better; both directions are shown, "
            "because they cancel in the accuracy." + left_out + no_row
        ),
        chart=panels(_chart(drawn, names), kept, columns=columns),
        data=_table(data),
        panel_width=150,
        tab="Flips",
    )


def _row(one: PairedAnswers) -> dict[str, object]:
    lost, gained = one.flips.lost, one.flips.gained
    return {
        **one.named,
        "n_lost": one.lost,
        "n_gained": one.gained,
        "n": one.n,
        "lost": -100 * one.lost / one.n,
        "gained": 100 * one.gained / one.n,
        "l1": None if lost.low is None else -100 * lost.low,
        "l2": None if lost.high is None else -100 * lost.high,
        "g1": None if gained.low is None else 100 * gained.low,
        "g2": None if gained.high is None else 100 * gained.high,
    }


def _chart(drawn: pd.DataFrame, names: list[str]) -> alt.LayerChart:
    columns = ["panel", "method", "family", "n_lost", "n_gained", "lost", "gained", "l1", "l2", "g1", "g2"]
    middle = pd.DataFrame({"panel": list(dict.fromkeys(drawn["panel"])), "middle": 0})
    rows = pd.concat([drawn[columns], middle])
    base = alt.Chart()
    with_values = base.transform_filter("isValid(datum.lost)")
    axis = alt.Axis(tickCount=5, labelExpr="format(abs(datum.value), '~g')")
    title = ["← lost · gained →", "% of questions"]
    place = with_values.encode(y=row_axis(names))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("n_lost:Q", title="right to wrong"),
        alt.Tooltip("n_gained:Q", title="wrong to right"),
    ]
    bars = [
        place.mark_bar(height={"band": 0.62}, opacity=opacity).encode(
            x=alt.X(f"{side}:Q", title=title, axis=axis, stack=None),
            color=family_color(drawn["family"], has_legend=False),
            tooltip=tooltip,
        )
        for side, opacity in (("lost", 1), ("gained", 0.55))
    ]
    whiskers = [
        place.mark_rule(strokeWidth=1, color="var(--ink)").encode(x=alt.X(f"{a}:Q", title=title), x2=f"{b}:Q")
        for a, b in (("l1", "l2"), ("g1", "g2"))
    ]
    line = base.mark_rule(strokeWidth=1, color="var(--muted)").encode(x=alt.X("middle:Q", title=title))
    return alt.LayerChart(layer=[*bars, *whiskers, line], data=rows).properties(height=row_height(names))


def _table(data: pd.DataFrame) -> pd.DataFrame:
    shares = data.assign(lost=-data["lost"], l1=-data["l1"], l2=-data["l2"])
    spans = {
        name: [interval(low, high, 1) for low, high in zip(shares[a], shares[b], strict=True)]
        for name, a, b in (("interval lost", "l1", "l2"), ("interval gained", "g1", "g2"))
    }
    columns = {
        "task": shares["task"],
        "pattern": shares["pattern"],
        "method": shares["label"],
        "right to wrong": shares["n_lost"],
        "% lost": shares["lost"],
        "95 % interval lost": spans["interval lost"],
        "wrong to right": shares["n_gained"],
        "% gained": shares["gained"],
        "95 % interval gained": spans["interval gained"],
        "n": shares["n"],
    }
    return pd.DataFrame(columns)


def _title(data: pd.DataFrame) -> str:
    """Names who lost most, which is the worst effect of pruning, or who gained most if nobody lost."""
    has_lost = bool(data["n_lost"].any())
    most = data.iloc[int((data["n_lost"] / data["n"] if has_lost else data["gained"]).argmax())]
    who = f"{most['label']} at {most['pattern']}" if data["pattern"].nunique() > 1 else str(most["label"])
    lost, gained = (decimal(abs(float(most[side])), 1) for side in ("lost", "gained"))
    if not has_lost:
        return f"No answer went from right to wrong; {who} gained most: {gained} % on {most['task']}"
    return (
        f"{who} lost most: on {most['task']} {lost} % of the answers from right to wrong, "
        f"and gained {gained} % from wrong to right"
    )


__all__ = ["flips_by_task"]
