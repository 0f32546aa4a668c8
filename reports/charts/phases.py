"""Cost by phase: what a method's prune time is spent on."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.drawing import Figure, first_panels, panels
from reports.charts.rows import first_rows, mean_places, names_over_patterns, row_axis, row_height, row_name
from reports.frame import cell_id
from reports.phases import PHASES, spent_by_phase
from reports.ranking import METHOD_PHASES, Entry, Ranking
from reports.wording import NBSP, decimal, pattern_name

OUTSIDE = ("load", "evaluate", "floor")
"""Phases that say nothing about the method and are longer than most."""
DRAWN = tuple(phase for phase in PHASES if phase not in OUTSIDE)


def seconds_by_phase(rankings: Sequence[Ranking]) -> Figure | None:
    """Seconds by phase as stacked bars, a panel a pattern, the shortest prune time first."""
    named = names_over_patterns(rankings)
    rows = [
        _row(r.pattern, e, named[cell_id(e.record)], i) for r in rankings for i, e in enumerate(r.entries)
    ]
    data = pd.DataFrame([row for row in rows if row is not None])
    if data.empty:
        return None
    phases = [phase for phase in DRAWN if data[phase].gt(0).any()]
    if not phases:
        return None
    kept, left_out = first_panels(list(dict.fromkeys(data["pattern"])))
    drawn = data[data["pattern"].isin(kept)]
    best, no_row = first_rows(zip(drawn["row"], drawn["place"], strict=True))
    drawn = drawn[drawn["row"].isin(best)]
    names = mean_places(zip(drawn["row"], drawn["prune time"], strict=True))
    columns = min(3, len(kept))
    return Figure(
        name="phases",
        title=_title(data),
        note=(
            "Seconds by phase, in the order in which they first happen, one run each, no interval. Shorter "
            "is better. The number is the whole bar; rows are sorted by prune time (statistics, solve and "
            "propagate). Loading and evaluating are left out, as the method does not decide them and they "
            "would dwarf the rest; the table beneath has them, all evaluations in one." + left_out + no_row
        ),
        chart=panels(_chart(drawn, phases, names), "panel", kept, columns=columns),
        data=_table(data, phases),
        panel_width=190,
        columns=columns,
        tab="Phases",
    )


def _row(pattern: str | None, entry: Entry, name: str, place: int) -> dict[str, object] | None:
    if entry.method_seconds is None:
        return None
    spent = dict.fromkeys((*DRAWN, *OUTSIDE), 0.0)
    spent |= {kind: took for kind, took in spent_by_phase(entry.record).items() if kind in spent}
    return {
        "pattern": pattern_name(pattern),
        "method": name,
        "row": row_name(name),
        "place": place,
        "prune time": entry.method_seconds,
        **spent,
    }


def _chart(drawn: pd.DataFrame, phases: list[str], names: list[str]) -> alt.LayerChart:
    whole = drawn[phases].sum(axis=1)
    wide = pd.DataFrame({"panel": drawn["pattern"], "method": drawn["row"], "whole": whole})
    # Folded in the chart, not here: one row for all phases is a third of the bytes of the page.
    rows = pd.concat([wide, drawn[phases]], axis=1).round(3)
    base = alt.Chart()
    steps = [f"var(--phase-{DRAWN.index(phase) + 1})" for phase in phases]
    order = "indexof([" + ", ".join(f"'{phase}'" for phase in phases) + "], datum.phase)"
    # The numbers stand beyond the longest bar.
    scale = alt.Scale(domainMax=1.15 * float(whole.max()), nice=False)
    y = row_axis(names)
    bars = (
        base.transform_fold([*phases], as_=["phase", "seconds"])
        .transform_filter("datum.seconds > 0")
        .transform_calculate(order=order)
        # Neighbours are parted by a line of the ground.
        .mark_bar(height={"band": 0.66}, stroke="var(--paper)", strokeWidth=0.75)
        .encode(
            x=alt.X("seconds:Q", title="seconds", stack="zero", scale=scale, axis=alt.Axis(tickCount=4)),
            y=y,
            color=alt.Color(
                "phase:N",
                scale=alt.Scale(domain=phases, range=steps),
                legend=alt.Legend(title=None, columns=3),
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("phase:N"),
                alt.Tooltip("seconds:Q", format=",.2~f"),
                alt.Tooltip("whole:Q", title="all phases, s", format=",.2~f"),
            ],
        )
    )
    numbers = base.mark_text(align="left", dx=5, fontSize=11, color="var(--muted)").encode(
        x=alt.X("whole:Q", title="seconds"), y=y, text=alt.Text("whole:Q", format=",.1f")
    )
    return alt.LayerChart(layer=[bars, numbers], data=rows).properties(height=row_height(names))


def _table(data: pd.DataFrame, phases: list[str]) -> pd.DataFrame:
    outside = [phase for phase in OUTSIDE if data[phase].gt(0).any()]
    ordered = [*phases, *outside]
    return data[["pattern", "method", "prune time", *ordered]].sort_values(
        ["pattern", "prune time"],
        key=lambda column: (
            column.map(list(dict.fromkeys(data["pattern"])).index) if column.name == "pattern" else column
        ),
        kind="stable",
    )


def _title(data: pd.DataFrame) -> str:
    longest = data.iloc[int(data["prune time"].argmax())]
    own = [phase for phase in METHOD_PHASES if phase in data.columns]
    most = max(own, key=lambda phase: float(longest[phase]))
    whole = float(longest["prune time"])
    share = f", {100 * float(longest[most]) / whole:.0f} % of it {most}" if whole else ""
    where = f" at {longest['pattern']}" if data["pattern"].nunique() > 1 else ""
    verb = "takes longest" if len(data) > 1 else "takes"
    return f"{longest['method']}{where} {verb}: {decimal(whole, 1)}{NBSP}s of prune time{share}"


__all__ = ["seconds_by_phase"]
