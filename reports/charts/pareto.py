"""Quality against cost, and which methods are not beaten in both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from reports.charts.costs import COSTS, Cost, machine_numbers, machines_note, on_machines
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
from reports.wording import counted, interval, listed, pattern_name, visible

MOST_NAMED = 3
"""Maximum number of methods or patterns named in a title; it only counts the rest."""


def pareto_views(rankings: Sequence[Ranking]) -> list[Figure]:
    """Draws perplexity on the first protocol against each recorded cost, one panel per pattern."""
    views = (_view(rankings, cost) for cost in COSTS)
    return [view for view in views if view is not None]


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the Pareto frontier, if lower is better in both coordinates.

    A point is off it if another one is at least as low in both and lower in one; equal points are on it
    together.
    """
    return [
        not any(x <= own_x and y <= own_y and (x < own_x or y < own_y) for x, y in points)
        for own_x, own_y in points
    ]


def _view(rankings: Sequence[Ranking], cost: Cost) -> Figure | None:
    names = names_over_patterns(rankings)
    machines = machine_numbers(rankings)
    rows = [row for ranking in rankings for row in _points(ranking, cost, names, machines)]
    if not any(row["cost"] for row in rows):
        return None
    unknown = [(r, e) for r in rankings for e in _measured(r) if cost.of(e) is None]
    data = pd.DataFrame(rows)
    protocol = rankings[0].setting.protocols[0]
    x = Range.of(spent for spent in data["cost"] if spent > 0)
    # A log axis cannot show 0 seconds; such a method is only in the table.
    shown = data[data["cost"] > 0] if x.is_log else data
    shown, kept, left_out = first_panels(shown)
    shown = shown.reset_index(drop=True)
    dense = {
        pattern_name(r.pattern): r.dense.scores[0].value
        for r in rankings
        if r.dense is not None and r.dense.scores[0].value is not None
    }
    lines = pd.DataFrame([{"panel": p, "dense": value} for p, value in dense.items() if p in kept])
    x = Range.of(shown["cost"])
    y = Range.of([*shown["perplexity"], *shown["low"], *shown["high"], *dense.values()])
    digits, sides = _rank_labels(shown, x, y)
    shown = shown.assign(digits=digits, side=sides)
    several = data["machine"].nunique() > 1
    shown = shown if several else shown.drop(columns="machine")
    chart = _chart(pd.concat([shown, lines]) if dense else shown, shown["family"], x, y, cost)
    whose = "of the same machine " if several else ""
    bars = "bars: 95 % interval" if data["low"].notna().any() else "no interval"
    unplaced = data[data["cost"] <= 0] if x.is_log else data.head(0)
    return Figure(
        name=cost.name,
        title=_title(data, cost, Counter(pattern_name(r.pattern) for r, _ in unknown)),
        note=(
            f"Perplexity on {visible(protocol.name)} (n = {counted(protocol.n, 'window')}, {bars}) "
            f"against {cost.about}. Lower and further left is better. Filled points are on the frontier, "
            f"along which the stepped line runs: no other method {whose}is at "
            "least as good in both and better in one (intervals aside). Digits are ranks by perplexity"
            + ("; the dashed line is dense." if dense else ".")
            + log_note({cost.noun: x, "perplexity": y})
            + machines_note(list(data["machine"]), "times and memory are comparable")
            + cost.left_out([entry for _, entry in unknown])
            + _zero_note(unplaced, cost)
            + left_out
        ),
        chart=panels(chart, kept, columns=2),
        data=_table(data, cost),
        panel_width=280,
        tab=cost.tab,
        narrow_columns=1,
        narrow_height=124,
    )


def _measured(ranking: Ranking) -> list[Entry]:
    """The entries that have a perplexity."""
    return [entry for entry in ranking.entries if entry.scores and entry.scores[0].value is not None]


def _points(
    ranking: Ranking, cost: Cost, names: Mapping[str, str], machines: Mapping[str, int]
) -> list[dict[str, object]]:
    """Returns the entries of a ranking that have both numbers; each machine has its own frontier."""
    measured = [(entry, entry.scores[0].value, cost.of(entry)) for entry in _measured(ranking)]
    placed = [(e, value, spent) for e, value, spent in measured if value is not None and spent is not None]
    numbers = [machines[entry.cell] for entry, _, _ in placed]
    on_it = [False] * len(placed)
    for number in set(numbers):
        same = [i for i, other in enumerate(numbers) if other == number]
        for i, is_on in zip(same, frontier([(placed[i][2], placed[i][1]) for i in same]), strict=True):
            on_it[i] = is_on
    return [
        {
            "panel": pattern_name(ranking.pattern),
            "rank": entry.rank,
            "method": names[entry.cell],
            "family": visible(entry.record.cell.method),
            "cost": spent,
            "perplexity": value,
            "low": entry.scores[0].low,
            "high": entry.scores[0].high,
            "interval": interval(entry.scores[0].low, entry.scores[0].high) or "none",
            "frontier": "yes" if is_on else "no",
            "machine": number,
        }
        for (entry, value, spent), number, is_on in zip(placed, numbers, on_it, strict=True)
    ]


def _table(data: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    names = {"panel": "pattern", "cost": cost.column, "frontier": "on the frontier"}
    ends = ["low", "high"] if data["low"].notna().any() else []
    machine = ["machine"] if data["machine"].nunique() > 1 else []
    columns = ["panel", "rank", "method", "cost", "perplexity", *ends, "frontier", *machine]
    return data[columns].rename(columns=names)


def _chart(drawn: pd.DataFrame, families: pd.Series[str], x: Range, y: Range, cost: Cost) -> alt.LayerChart:
    base = alt.Chart()
    across = alt.X("cost:Q", title=f"{cost.noun}, {cost.unit}", scale=x.close_scale, axis=x.axis)
    up = alt.Y("perplexity:Q", title="perplexity", scale=y.scale, axis=y.axis)
    place = base.encode(x=across, color=family_color(families))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("panel:N", title="pattern"),
        alt.Tooltip("perplexity:Q", format=",.2f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("cost:Q", title=f"{cost.noun}, {cost.unit}", format=",.3~f"),
        alt.Tooltip("frontier:N", title="on the frontier"),
    ]
    shape = family_shape(families)
    points = place.mark_point(filled=True, size=80, opacity=1).encode(y=up, shape=shape, tooltip=tooltip)
    # Points off the frontier are hollow, which can be seen without colours.
    hollow = (
        base.transform_filter("datum.frontier == 'no'")
        .mark_point(filled=True, size=24, opacity=1, color="var(--paper)")
        .encode(x=across, y=up, shape=shape, tooltip=tooltip)
    )
    steps = (
        base.transform_filter("datum.frontier == 'yes'")
        .mark_line(interpolate="step-after", strokeWidth=1, color="var(--muted)")
        .encode(x=across, y=up)
    )
    if "machine" in drawn.columns:
        steps = steps.encode(detail="machine:N")
        tooltip.append(alt.Tooltip("machine:N"))
    whiskers = place.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title="perplexity"), y2="high:Q")
    ranks = place.mark_text(
        dx=alt.expr("9 * datum.side"),
        dy=-7,
        align=alt.expr("datum.side > 0 ? 'left' : 'right'"),
        fontSize=11,
    ).encode(y="perplexity:Q", text="digits:N", color=alt.value("var(--ink)"))
    layers = [steps, whiskers, points, hollow, ranks]
    if "dense" in drawn.columns:
        layers.insert(0, dense_line(y="dense:Q"))
    return alt.LayerChart(layer=layers, data=drawn).properties(height=240)


def _rank_labels(data: pd.DataFrame, x: Range, y: Range) -> tuple[list[str], list[int]]:
    """Returns the text next to each point and its side: -1 if another point is to its right, else 1.

    Points that coincide share one text with all their ranks.
    """
    across, up = _shares(data["cost"], x), _shares(data["perplexity"], y)
    digits: list[str] = []
    sides: list[int] = []
    for i, pattern in enumerate(data["panel"]):
        here = data["panel"] == pattern
        gaps, rise = across - across.iloc[i], (up - up.iloc[i]).abs()
        group = data.index[here & (gaps.abs() < 0.015) & (rise < 0.04)]
        is_first = data.index[i] == group[0]
        digits.append(_listed_ranks(list(data.loc[group, "rank"])) if is_first else "")
        close = here & (rise < 0.12)
        right = bool((close & (gaps > 0.015) & (gaps < 0.15)).any())
        left = bool((close & (gaps < -0.015) & (gaps > -0.15)).any())
        sides.append(-1 if right and not left else 1)
    return digits, sides


def _listed_ranks(ranks: Sequence[object]) -> str:
    """Lists a few ranks in full, many by the first and the last."""
    return ", ".join(map(str, ranks)) if len(ranks) <= MOST_NAMED else f"{ranks[0]} … {ranks[-1]}"


def _shares(values: pd.Series[float], spanned: Range) -> pd.Series[float]:
    """Returns the position of each value on its axis, from 0 to 1."""
    low, high = spanned.low, spanned.high
    if spanned.is_log:
        values, low, high = values.map(math.log), math.log(low), math.log(high)
    return values.sub(low).div((high - low) or 1.0)


def _zero_note(unplaced: pd.DataFrame, cost: Cost) -> str:
    if unplaced.empty:
        return ""
    verb = "has" if len(unplaced) == 1 else "have"
    return (
        f" {counted(len(unplaced), 'method')} of 0 {cost.unit} {verb} no place on a log axis: see the table."
    )


def _title(data: pd.DataFrame, cost: Cost, unknown: Mapping[str, int]) -> str:
    """Names the methods that are not beaten in both, by pattern if the patterns are few, else with counts.

    Args:
        data: the methods whose cost is known.
        cost: the kind of cost.
        unknown: for each pattern, how many more methods have a perplexity but no cost; one may be the best.
    """
    if data.groupby("panel")["machine"].nunique().max() > 1:
        return f"Perplexity against {cost.noun}, {on_machines(data['machine'].nunique())}"
    patterns = list(dict.fromkeys(data["panel"]))
    best = {p: tuple(_on_frontier(data[data["panel"] == p])) for p in patterns}
    if len(set(best.values())) > 2:
        counts = Counter(label for labels in best.values() for label in labels).most_common()
        named = [f"{label} in {n}" for label, n in counts[:MOST_NAMED]]
        named[0] += f" of {len(patterns)} patterns"
        more = len(counts) - MOST_NAMED
        named += [f"{counted(more, 'other method')} in fewer or as many"] if more > 0 else []
        scope = f" (of the methods whose {cost.noun} is known)" if any(map(unknown.get, patterns)) else ""
        return f"On the frontier of perplexity and {cost.noun}: {listed(named)}{scope}"
    same: dict[tuple[tuple[str, ...], bool, str], list[str]] = {}
    for pattern, labels in best.items():
        n_known = int((data["panel"] == pattern).sum())
        scope = f" (of the {n_known} methods whose {cost.noun} is known)" if unknown.get(pattern) else ""
        same.setdefault((labels, n_known == 1, scope), []).append(pattern)
    unbeaten: list[str] = []
    others: list[str] = []
    for (labels, is_alone, scope), where in same.items():
        at = f"at {_some(where, 'more pattern', 'and')}"
        if is_alone:
            others.append(f"{labels[0]} is the only method with a perplexity and a {cost.noun} {at}")
        elif len(labels) == 1:
            others.append(f"{labels[0]} has both the lowest perplexity and the {cost.least} {at}{scope}")
        elif unbeaten:
            unbeaten.append(f"{_some(labels, 'other', 'or')} {at}{scope}")
        else:
            who = _some(labels, "other", "or")
            unbeaten.append(f"No method beats {who} in both perplexity and {cost.noun} {at}{scope}")
    return "; ".join([*([", nor ".join(unbeaten)] if unbeaten else []), *others])


def _on_frontier(panel: pd.DataFrame) -> list[str]:
    return list(panel.loc[panel["frontier"] == "yes", "method"])


def _some(names: Sequence[str], noun: str, conjunction: str) -> str:
    """Names the first few and counts the rest."""
    shown = list(names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        shown.append(counted(len(names) - MOST_NAMED, noun))
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {conjunction} {shown[-1]}"


__all__ = ["frontier", "pareto_views"]
