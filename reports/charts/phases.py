"""Cost by phase: how a method's prune time is spent."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.costs import TIME, machine_numbers, machines_note, on_machines
from reports.charts.drawing import Figure, first_panels, panels
from reports.charts.rows import first_rows, mean_places, names_over_patterns, row_axis, row_height, row_name
from reports.rankings.phases import EVALUATION, PHASES, spent_by_phase
from reports.rankings.ranking import METHOD_PHASES, Entry, Ranking
from reports.wording import NBSP, decimal, listed, pattern_name

OUTSIDE = ("load", *EVALUATION, "reference speed")
"""Phases that do not characterize the method and take longer than most."""
OTHER = "other"
"""Phases whose names are unknown here, of methods defined elsewhere."""
DRAWN = (*(phase for phase in PHASES if phase not in OUTSIDE), OTHER)
STEPS = tuple(f"var(--phase-{step})" for step in range(1, 8))
"""Colours of the phases in order; phases beyond these are pale and outlined."""


def seconds_by_phase(rankings: Sequence[Ranking]) -> Figure | None:
    """Draws seconds by phase as stacked bars, one panel per pattern, the shortest prune time first."""
    named, machines = names_over_patterns(rankings), machine_numbers(rankings)
    rows = [
        _row(r.pattern, e, named[e.cell], i, machines[e.cell])
        for r in rankings
        for i, e in enumerate(r.entries)
    ]
    untimed = [e for r in rankings for e in r.entries if e.method_seconds is None]
    data = pd.DataFrame([row for row in rows if row is not None])
    if data.empty:
        return None
    phases = [phase for phase in DRAWN if data[phase].gt(0).any()]
    if not phases:
        return None
    drawn, kept, left_out = first_panels(data, "pattern")
    drawn, _, no_row = first_rows(drawn, "row")
    names = mean_places(zip(drawn["row"], drawn["prune time"], strict=True))
    return Figure(
        name="phases",
        title=_title(data, sum(entry.record.checkpoint is None for entry in untimed)),
        note=(
            "Seconds by phase, in the order in which they first happen, one run each, no interval. Shorter "
            "is better. The number is the length of the whole bar; rows are sorted by prune time "
            f"({listed([*METHOD_PHASES])}). Loading and evaluation are not drawn, as they do not depend on "
            "the method and would dwarf the rest; the table below has them."
            + (f" {OTHER.capitalize()}, last: phases that only some methods have." if OTHER in phases else "")
            + machines_note(list(data["machine"]), "times are comparable")
            + TIME.left_out(untimed)
            + left_out
            + no_row
        ),
        chart=panels(_chart(drawn, phases, names), kept, columns=3),
        data=_table(data, phases),
        panel_width=190,
        tab="Phases",
    )


def _row(pattern: str | None, entry: Entry, name: str, place: int, machine: int) -> dict[str, object] | None:
    if entry.method_seconds is None:
        return None
    spent = dict.fromkeys((*DRAWN, *OUTSIDE), 0.0)
    for kind, took in spent_by_phase(entry.record).items():
        spent[kind if kind in PHASES else OTHER] += took
    return {
        "pattern": pattern_name(pattern),
        "method": name,
        "row": row_name(name),
        "place": place,
        "machine": machine,
        "prune time": entry.method_seconds,
        **spent,
    }


def _chart(drawn: pd.DataFrame, phases: list[str], names: list[str]) -> alt.LayerChart:
    whole = drawn[phases].sum(axis=1)
    wide = pd.DataFrame({"panel": drawn["pattern"], "method": drawn["row"], "whole": whole})
    # Folded in the chart, not here: one row for all phases takes a third of the bytes on the page.
    rows = pd.concat([wide, drawn[phases]], axis=1).round(3)
    base = alt.Chart()
    fills, outlines = _looks(phases)
    # The same legend for both, so that they are merged into one.
    legend = alt.Legend(title=None, columns=3)
    order = "indexof([" + ", ".join(f"'{phase}'" for phase in phases) + "], datum.phase)"
    # Leave room for the numbers to the right of the longest bar.
    scale = alt.Scale(domainMax=1.15 * float(whole.max()), nice=False)
    y = row_axis(names)
    bars = (
        base.transform_fold([*phases], as_=["phase", "seconds"])
        .transform_filter("datum.seconds > 0")
        .transform_calculate(order=order)
        .mark_bar(height={"band": 0.66}, strokeWidth=0.75)
        .encode(
            x=alt.X("seconds:Q", title="seconds", stack="zero", scale=scale, axis=alt.Axis(tickCount=4)),
            y=y,
            color=alt.Color(
                "phase:N",
                scale=alt.Scale(domain=phases, range=fills),
                legend=legend,
            ),
            # A line in the background colour separates neighbouring bars.
            stroke=alt.Stroke("phase:N", scale=alt.Scale(domain=phases, range=outlines), legend=legend),
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


def _looks(phases: list[str]) -> tuple[list[str], list[str]]:
    """Returns fill and outline colours of the phases, in their order."""
    named = [phase for phase in phases if phase != OTHER]
    fills = {phase: STEPS[i] if i < len(STEPS) else "var(--line)" for i, phase in enumerate(named)}
    fills[OTHER] = "var(--paper)"
    chosen = [fills[phase] for phase in phases]
    return chosen, ["var(--paper)" if fill in STEPS else "var(--muted)" for fill in chosen]


def _table(data: pd.DataFrame, phases: list[str]) -> pd.DataFrame:
    outside = [phase for phase in OUTSIDE if data[phase].gt(0).any()]
    ordered = [*phases, *outside]
    machine = ["machine"] if data["machine"].nunique() > 1 else []
    return data[["pattern", "method", "prune time", *ordered, *machine]].sort_values(
        ["pattern", "prune time"],
        key=lambda column: (
            column.map(list(dict.fromkeys(data["pattern"])).index) if column.name == "pattern" else column
        ),
        kind="stable",
    )


def _title(data: pd.DataFrame, n_unknown: int) -> str:
    """Names the slowest method and its longest phase; the times of `n_unknown` more methods are unknown."""
    if (n := data["machine"].nunique()) > 1:
        return f"Prune time by phase, {on_machines(n)}"
    longest = data.iloc[int(data["prune time"].argmax())]
    own = [phase for phase in METHOD_PHASES if phase in data.columns]
    most = max(own, key=lambda phase: float(longest[phase]))
    whole = float(longest["prune time"])
    share = f", {100 * float(longest[most]) / whole:.0f} % of it {most}" if whole else ""
    where = f" at {longest['pattern']}" if data["pattern"].nunique() > 1 else ""
    verb = "takes longest" if len(data) > 1 else "takes"
    if n_unknown and len(data) > 1:
        verb += f" of the {len(data)} methods whose prune time is known"
    return f"{longest['method']}{where} {verb}: {decimal(whole, 1)}{NBSP}s of prune time{share}"


__all__ = ["seconds_by_phase"]
