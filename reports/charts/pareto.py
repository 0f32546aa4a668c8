"""Quality against cost: what a method keeps, held against what it took."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from reports.charts.drawing import Figure, Range, family_color, family_shape, log_note, panels
from reports.ranking import Entry, Ranking
from reports.wording import decimal, listed, pattern_name, visible


def time_against_perplexity(rankings: Sequence[Ranking]) -> Figure | None:
    """Seconds in the method's phases against perplexity on the first protocol, a panel a pattern."""
    rows = [_point(ranking, entry) for ranking in rankings for entry in ranking.entries]
    data = pd.DataFrame([row for row in rows if row is not None])
    if data.empty:
        return None
    data["side"] = _label_sides(data)
    protocol = rankings[0].setting.protocols[0]
    dense = {
        pattern_name(r.pattern): r.dense.scores[0].value
        for r in rankings
        if r.dense is not None and r.dense.scores[0].value is not None
    }
    lines = pd.DataFrame({"pattern": dense.keys(), "dense": dense.values()})
    drawn = pd.concat([data, lines]) if dense else data.assign(dense=None)
    x = Range.of(data["seconds"])
    y = Range.of([*data["perplexity"], *data["low"], *data["high"], *dense.values()])
    base = alt.Chart(drawn)
    place = base.encode(
        x=alt.X("seconds:Q", title="prune time, s", scale=x.scale, axis=x.axis),
        color=family_color(data["family"]),
    )
    points = place.mark_point(filled=True, size=80, opacity=1).encode(
        y=alt.Y("perplexity:Q", title="perplexity", scale=y.scale, axis=y.axis),
        shape=family_shape(data["family"]),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("pattern:N"),
            alt.Tooltip("perplexity:Q", format=",.2f"),
            alt.Tooltip("interval:N", title="95 % interval"),
            alt.Tooltip("seconds:Q", format=",.1f"),
        ],
    )
    whiskers = place.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title="perplexity"), y2="high:Q")
    ranks = place.mark_text(
        dx=alt.expr("9 * datum.side"),
        dy=-7,
        align=alt.expr("datum.side > 0 ? 'left' : 'right'"),
        fontSize=11,
    ).encode(y="perplexity:Q", text="rank:Q", color=alt.value("var(--ink)"))
    floor = base.mark_rule(strokeDash=[4, 3], strokeWidth=1, color="var(--muted)").encode(y="dense:Q")
    layers = [*([floor] if dense else []), whiskers, points, ranks]
    chart = alt.LayerChart(layer=layers).properties(height=280)
    return Figure(
        name="time",
        title=_time_title(rankings),
        note=(
            f"Perplexity on {visible(protocol.name)} (n = {protocol.n} windows, bars: 95 % interval) against "
            "seconds in the method's own phases (statistics, solve, propagate; one run, no interval). Lower "
            "and further left is better. Digits are ranks by perplexity"
            + ("; the dashed line is dense." if dense else ".")
            + log_note({"time": x, "perplexity": y})
        ),
        chart=panels(chart, "pattern", list(dict.fromkeys(data["pattern"])), columns=2),
        data=data.drop(columns=["family", "interval", "side"]),
        panel_width=280,
        columns=2,
    )


def _point(ranking: Ranking, entry: Entry) -> dict[str, object] | None:
    seconds = entry.method_seconds
    score = entry.scores[0] if entry.scores else None
    # A log axis has no place for 0 seconds; such a method stays in the table.
    if score is None or score.value is None or not seconds:
        return None
    return {
        "pattern": pattern_name(ranking.pattern),
        "rank": entry.rank,
        "method": entry.label,
        "family": visible(entry.record.cell.method),
        "seconds": seconds,
        "perplexity": score.value,
        "low": score.low,
        "high": score.high,
        "interval": "none" if score.low is None else f"{decimal(score.low)} to {decimal(score.high)}",
    }


def _label_sides(data: pd.DataFrame) -> list[int]:
    """-1 where a rank written right of its point would meet another point of the panel, else 1."""
    across, up = (_log_share(data[name]) for name in ("seconds", "perplexity"))
    sides = []
    for i, pattern in enumerate(data["pattern"]):
        close = (data["pattern"] == pattern) & ((up - up.iloc[i]).abs() < 0.12)
        gaps = across - across.iloc[i]
        right = bool((close & (gaps > 0) & (gaps < 0.15)).any())
        left = bool((close & (gaps < 0) & (gaps > -0.15)).any())
        sides.append(-1 if right and not left else 1)
    return sides


def _log_share(values: pd.Series[float]) -> pd.Series[float]:
    """Where each value lies between the smallest (0) and the largest (1) on a log axis."""
    logs = values.map(math.log10)
    low, high = float(logs.min()), float(logs.max())
    return logs.sub(low).div((high - low) or 1.0)


def _time_title(rankings: Sequence[Ranking]) -> str:
    seen: dict[str, list[str]] = {}
    for ranking in rankings:
        timed = [e for e in ranking.entries if e.method_seconds and e.scores and e.scores[0].value]
        if not timed:
            continue
        lowest, fastest = timed[0].label, min(timed, key=lambda e: e.method_seconds or math.inf).label
        both = f"{lowest} is both lowest and fastest"
        said = both if lowest == fastest else f"{lowest} is lowest and {fastest} fastest"
        seen.setdefault(said, []).append(pattern_name(ranking.pattern))
    parts = [f"{said} at {listed(patterns)}" for said, patterns in seen.items()]
    return f"Prune time against perplexity: {'; '.join(parts)}"
