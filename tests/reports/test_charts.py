"""The figures: what they show, what they say, and that they survive anything a record may hold."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.charts import Figure, figures
from reports.charts.pareto import frontier
from reports.comparison import compare
from reports.recovery import recovery
from suite.results.record import PhaseCost, Record
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import N_QUESTIONS, measured_quickstart, measured_record

HOSTILE = "</script><b>\"'\\[0].x: {{7*7}} ${y} (a, b)\n\u202e-0shot"


def drawn(records: list[Record]) -> dict[str, Figure]:
    """The figures of records that are all of one setting, by name."""
    rankings = compare(records).rankings
    assert len({r.setting for r in rankings}) == 1
    return {figure.name: figure for figure in figures(rankings)}


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    """What the chart draws."""
    (rows,) = figure.chart.to_dict()["datasets"].values()
    return rows


@pytest.fixture(scope="module")
def measured() -> dict[str, Figure]:
    return drawn(measured_quickstart())


@pytest.fixture(scope="module")
def sparser() -> list[Record]:
    """Four unstructured sparsities and 2:4, three tasks."""
    tasks = ("cloze", "agreement", "next")
    records = [measured_record("dense", tasks=tasks)]
    for i, pattern in enumerate(("0.5", "0.6", "0.7", "0.8", "2:4")):
        records += [
            measured_record(kind, pattern, tasks=tasks, ppl_factor=1 + i)
            for kind in ("wanda", "sparsegpt", "barber-wanda", "barber-magnitude")
        ]
    return records


def test_all_that_was_measured_is_drawn_in_the_order_of_the_questions(measured) -> None:
    assert list(measured) == ["time", "memory", "quality", "recovery", "flips", "moved", "error", "phases"]
    assert len({figure.tab for figure in measured.values()}) == len(measured)


def test_every_figure_has_a_title_a_note_and_data_to_read(measured, sparser) -> None:
    for figure in [*measured.values(), *drawn(sparser).values()]:
        assert figure.title and "nan" not in figure.title.lower()
        assert "better" in figure.note and "interval" in figure.note
        assert len(figure.data) > 0
        assert not figure.data.isna().all().any()
        assert all(re.fullmatch(r"[\w ×%]+", name) for name in figure.data.columns)
        text = json.dumps(figure.chart.to_dict(), allow_nan=False)
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) == set()  # colours are the page's variables


@pytest.mark.parametrize(
    ("points", "on_it"),
    [
        ([], []),
        ([(3, 3)], [True]),
        ([(1, 3), (2, 2), (3, 1)], [True, True, True]),
        ([(1, 1), (2, 2), (1, 2), (2, 1)], [True, False, False, False]),
        ([(1, 1), (1, 1), (2, 1)], [True, True, False]),
        ([(1, 3), (1, 2), (2, 2), (3, 1)], [False, True, False, True]),
        ([(0, 9), (5, 1), (4, 9)], [True, True, False]),
    ],
)
def test_the_frontier_is_what_nothing_beats(points, on_it) -> None:
    assert frontier(points) == on_it


def test_the_time_view_says_which_methods_nothing_beats(measured) -> None:
    figure = measured["time"]
    assert "sparsegpt, wanda [seed=0] or magnitude" in figure.title
    assert "50\u00a0% unstructured and 2:4" in figure.title
    on_it = figure.data[figure.data["on the frontier"] == "yes"]
    assert set(on_it["method"]) == {"sparsegpt", "wanda [seed=0]", "magnitude"}
    held = {row["method"] for row in rows_of(figure) if row.get("frontier") == "yes"}
    assert held == set(on_it["method"])


def test_one_method_that_is_best_in_both_is_named_alone() -> None:
    figure = drawn([make_record("sparsegpt"), make_record("barber-sparsegpt")])["time"]
    assert figure.title.startswith("sparsegpt has both the lowest perplexity and the shortest prune time")
    assert "dense" not in figure.note
    alone = drawn([make_record("wanda")])["time"]
    assert "wanda is the only method" in alone.title


def test_many_frontiers_are_counted() -> None:
    records = [make_record("dense")]
    for i, pattern in enumerate(("0.5", "0.6", "0.7", "0.8")):
        kinds = ("magnitude", "wanda", "sparsegpt", "barber-wanda")[: i + 1]
        records += [make_record(kind, pattern) for kind in kinds]
    assert "magnitude in 4 of 4 patterns, wanda in 3 and sparsegpt in 2" in drawn(records)["time"].title


def test_a_method_of_no_seconds_is_in_the_table_and_the_note() -> None:
    free = make_record("magnitude", phases=(PhaseCost(name="solve", seconds=0.0),))
    others = [make_record("wanda"), make_record("barber-magnitude")]
    quick = make_record("sparsegpt", phases=(PhaseCost(name="solve", seconds=0.01),))
    figure = drawn([make_record("dense"), free, quick, *others])["time"]
    assert "1 method of 0 s has no place on a log axis" in figure.note
    assert "magnitude" in set(figure.data["method"])
    assert "magnitude" not in {row.get("method") for row in rows_of(figure)}
    assert dict(zip(figure.data["method"], figure.data["on the frontier"], strict=True))["magnitude"] == "yes"


def test_what_lacks_a_number_is_left_out() -> None:
    untimed = make_record("sparsegpt", phases=())
    built = make_record("wanda")
    lost = built.model_copy(
        update={
            "windows": tuple(w.model_copy(update={"nll": (None,) * len(w.nll)}) for w in built.windows),
            "metrics": tuple(
                m.model_copy(update={"value": None, "status": "overflow"}) for m in built.metrics
            ),
        }
    ).sealed()
    found = drawn([make_record("dense"), untimed, lost, make_record("magnitude")])
    assert list(found["time"].data["method"]) == ["magnitude"]
    assert "sparsegpt" not in set(found["phases"].data["method"])
    assert drawn([make_record("wanda", phases=(), modules=(), metrics=())]).keys() == set()


def test_device_memory_is_drawn_where_it_was_counted() -> None:
    def on_device(kind: str, gib: int) -> Record:
        built = make_record(kind)
        return built.model_copy(
            update={
                "phases": tuple(p.model_copy(update={"peak_device_bytes": gib * 2**30}) for p in built.phases)
            }
        ).sealed()

    figure = drawn([on_device("wanda", 3), on_device("sparsegpt", 5)])["device-memory"]
    assert list(figure.data["device GiB"]) == [5.0, 3.0]
    assert "device-memory" not in drawn(quickstart())


def test_nothing_to_show_is_no_figure() -> None:
    assert figures(compare([make_record("dense")]).rankings) == []
    assert figures(compare([make_record("dense"), failed_record()]).rankings) == []
    one = drawn([make_record("dense"), make_record("wanda")])
    assert not {"quality", "recovery", "flips", "moved", "error"} & one.keys()


def test_quality_is_over_dense_at_the_target_sparsities(sparser) -> None:
    figure = drawn(sparser)["quality"]
    assert "1.61 times its perplexity at 50\u00a0% unstructured" in figure.title
    assert "6.45 at 80\u00a0% unstructured" in figure.title
    rows = [row for row in rows_of(figure) if row.get("method")]
    assert {row["x"] for row in rows if row["joined"]} == {50, 60, 70, 80}
    assert {row["x"] for row in rows if not row["joined"]} == {50}
    assert "hollow" in figure.note
    dense = {w.protocol: w for w in sparser[0].windows}
    for row in figure.data.to_dict("records"):
        nll = dense[row["protocol"]].nll
        base = math.exp(sum(v for v in nll if v is not None) / len(nll))
        assert row["× dense"] * base == pytest.approx(row["perplexity"])


def test_quality_without_dense_is_perplexity_itself() -> None:
    records = [make_record(kind, p) for kind in ("wanda", "sparsegpt") for p in ("0.5", "2:4")]
    figure = drawn(records)["quality"]
    assert "perplexity" in figure.data.columns and "× dense" not in figure.data.columns
    assert "sparsegpt has the lowest perplexity: 40.30 at 50" in figure.title
    assert "dashed" not in figure.note


def test_a_method_has_one_name_at_all_patterns(measured) -> None:
    for name in ("quality", "phases", "time"):
        at_24 = measured[name].data[measured[name].data["pattern"] == "2:4"]
        assert "wanda [seed=0]" in set(at_24["method"])


def test_recovery_and_flips_are_counted_on_the_questions_of_both(measured) -> None:
    records = measured_quickstart()
    dense = {t.protocol: t.outcomes for t in records[0].tasks}
    wanted = {}
    for record in records[1:]:
        for task in record.tasks:
            pairs = list(zip(dense[task.protocol], task.outcomes, strict=True))
            wanted[record.cell.method, record.cell.pattern == "2:4", task.protocol] = (
                pairs.count(("1", "0")),
                pairs.count(("0", "1")),
                task.outcomes.count("1") / dense[task.protocol].count("1"),
            )
    flips, recovery = measured["flips"].data, measured["recovery"].data
    assert len(flips) == len(recovery) == 24
    for method in ("sparsegpt", "magnitude"):
        for data in (flips, recovery):
            assert len(data[data["method"] == method]) == 4
    for (_, lost), (_, kept) in zip(flips.iterrows(), recovery.iterrows(), strict=True):
        if lost["method"] not in ("sparsegpt", "magnitude"):
            continue
        n_lost, n_gained, ratio = wanted[lost["method"], lost["pattern"] == "2:4", lost["task"]]
        assert (lost["right to wrong"], lost["wrong to right"]) == (n_lost, n_gained)
        assert lost["% lost"] == pytest.approx(100 * n_lost / N_QUESTIONS)
        assert kept["recovery %"] == pytest.approx(100 * ratio)
        assert kept["low %"] < kept["recovery %"] < kept["high %"]


def test_titles_of_tasks_name_the_extremes(measured) -> None:
    data = measured["recovery"].data
    lowest, highest = data["recovery %"].min(), data["recovery %"].max()
    assert f"from {lowest:.0f} % (magnitude on cloze-0shot" in measured["recovery"].title
    assert f"to {highest:.0f} %" in measured["recovery"].title
    most = measured["flips"].data["% lost"].max()
    assert f"{most:.1f} % of the answers from right to wrong" in measured["flips"].title


def test_tasks_of_other_questions_are_not_held_against_dense() -> None:
    found = drawn([measured_record("dense", limit=100), measured_record("wanda", limit=200)])
    assert not {"recovery", "flips"} & found.keys()


def test_answers_all_wrong_have_a_point_and_no_interval() -> None:
    record = measured_record("wanda")
    wrong = tuple(t.model_copy(update={"outcomes": "0" * t.n}) for t in record.tasks)
    pruned = record.model_copy(update={"tasks": wrong}).sealed()
    figure = drawn([measured_record("dense"), pruned])["recovery"]
    assert list(figure.data["recovery %"]) == [0.0, 0.0]
    assert not {"low %", "high %"} & set(figure.data.columns)
    assert "A point without a bar has no interval: nothing was answered rightly." in figure.note


COUNT = st.integers(min_value=0, max_value=500)


@settings(max_examples=200, deadline=None)
@given(both=COUNT, lost=COUNT, gained=COUNT, neither=COUNT)
def test_the_interval_of_recovery_is_the_delta_method_on_the_counts(both, lost, gained, neither) -> None:
    found = recovery(both, lost, gained)
    if both + lost == 0:
        assert (found.value, found.low, found.high) == (None, None, None) and found.status != "ok"
        return
    assert found.value == pytest.approx((both + gained) / (both + lost))
    if both + gained == 0 or lost + gained == 0:
        assert (found.low, found.high) == (None, None) and found.status != "ok"
        return
    n = both + lost + gained + neither
    share = np.array([both, lost, gained, neither]) / n
    covariance = (np.diag(share) - np.outer(share, share)) / n
    pruned, dense = share[0] + share[2], share[0] + share[1]
    slope = np.array([1 / pruned - 1 / dense, -1 / dense, 1 / pruned, 0.0])
    deviation = math.sqrt(slope @ covariance @ slope)
    assert math.log(found.high / found.low) == pytest.approx(2 * stats.norm.ppf(0.975) * deviation)
    assert found.low < found.value < found.high
    back = recovery(both, gained, lost)
    assert (back.low, back.high) == pytest.approx((1 / found.high, 1 / found.low))


@pytest.mark.parametrize("share", [(0.5, 0.1, 0.03), (0.3, 0.3, 0.05), (0.75, 0.05, 0.05), (0.2, 0.05, 0.2)])
@pytest.mark.parametrize("n", [75, 400])
def test_the_interval_of_recovery_covers_the_truth_as_often_as_it_says(share, n) -> None:
    both, lost, gained = share
    truth = (both + gained) / (both + lost)
    drawn_counts = np.random.default_rng(0).multinomial(n, [*share, 1 - sum(share)], size=3000)
    found = [recovery(int(a), int(b), int(c)) for a, b, c, _ in drawn_counts]
    covered = np.mean([one.low is not None and one.low <= truth <= one.high for one in found])
    assert 0.93 <= covered <= 0.97


def test_recovery_refuses_counts_below_zero() -> None:
    with pytest.raises(ValueError, match="not negative"):
        recovery(3, -1, 0)


def test_phases_do_not_count_what_encloses_them_twice() -> None:
    spent = {"load": 9, "calibrate": 1, "prune": 12, "statistics": 5, "solve": 4, "propagate": 2, "check": 1}
    spent |= {"evaluate a": 30, "evaluate b": 20, "speed": 7}
    phases = tuple(PhaseCost(name=name, seconds=seconds) for name, seconds in spent.items())
    figure = drawn([make_record("wanda", phases=phases)])["phases"]
    (row,) = figure.data.to_dict("records")
    assert row["prune time"] == 11 and row["rest of the prune"] == 1 and row["evaluate"] == 50
    (shown,) = rows_of(figure)
    assert shown["whole"] == 14
    assert not {"load", "evaluate", "prune"} & shown.keys()
    assert "wanda takes: 11.0\u00a0s of prune time, 45 % of it statistics" in figure.title


def test_layers_say_where_and_by_how_much(measured) -> None:
    data = measured["error"].data
    fell = sum(int((data[f"{b} after"] < data[f"{b} before"]).sum()) for b in ("attention", "mlp"))
    assert f"lowered the block error in {fell} of {2 * len(data)} blocks" in measured["error"].title
    values = [point for row in rows_of(measured["moved"]) for point in row["value"]]
    assert f"{max(values):.2g} % of the weights" in measured["moved"].title
    assert len(values) == 2 * len(measured["moved"].data)


def test_panels_beyond_the_first_are_counted_and_stay_in_the_table() -> None:
    records = [measured_record("dense", parts=("tasks",))]
    records += [measured_record("wanda", f"0.{i}", parts=("tasks",)) for i in range(41, 71)]
    found = drawn(records)
    for name, n_panels in {"time": 30, "recovery": 60, "flips": 60, "phases": 30}.items():
        figure = found[name]
        assert len(figure.chart.to_dict()["facet"]["sort"]) == 24
        assert f"{n_panels - 24} further panels are not drawn" in figure.note
        assert len(figure.data) == n_panels


def test_rows_beyond_the_first_are_counted_and_points_on_each_other_share_their_label() -> None:
    seeds = [make_record("wanda", seed=seed) for seed in range(30)]
    found = drawn([make_record("dense"), make_record("sparsegpt"), *seeds])
    assert "9 further methods not drawn" in found["phases"].note
    assert len(rows_of(found["phases"])) == 22 and len(found["phases"].data) == 31
    assert {row["digits"] for row in rows_of(found["time"]) if row.get("digits")} == {"1", "2 … 31"}


def test_one_window_has_points_and_no_intervals() -> None:
    records = [make_record(kind, p, n_windows=1) for kind in ("wanda", "sparsegpt") for p in ("0.5", "2:4")]
    for name in ("time", "quality"):
        figure = drawn(records)[name]
        assert not {"low", "high"} & set(figure.data.columns)
        assert len(figure.data) in (4, 8)


@pytest.mark.parametrize("where", ["setting", "task", "corpus", "method"])
def test_hostile_names_are_values_and_nothing_else(where: str) -> None:
    changes: dict[str, Any] = {"tasks": (HOSTILE, "x")} if where == "task" else {}
    if where == "corpus":
        changes["corpora"] = (HOSTILE, "b")
    records = [measured_record("dense", **changes)]
    for kind in ("wanda", "barber-wanda"):
        for pattern in ("0.5", "2:4"):
            own = dict(changes)
            if where == "setting":
                own["settings"] = {"initial": HOSTILE, "granularity": kind}
            record = measured_record(kind, pattern, **own)
            if where == "method" and kind == "wanda":
                cell = record.cell.model_copy(update={"method": HOSTILE})
                record = record.model_copy(update={"cell": cell}).sealed()
            records.append(record)
    found = drawn(records)
    assert {"time", "quality", "recovery", "flips", "error", "phases"} <= found.keys()
    for figure in found.values():
        spec = figure.chart.to_dict()
        read = [*_strings(spec, "field"), *_strings(spec, "labelExpr"), *_strings(spec, "calculate")]
        read += [*_strings(spec, "filter"), *_strings(spec, "expr"), *_strings(spec, "title")]
        assert read and not any("7*7" in text for text in read)
        assert "\u202e" not in json.dumps(spec, ensure_ascii=False)


def _strings(part: Any, key: str) -> list[str]:
    """Every string beneath `key`, apart from the data."""
    if isinstance(part, list):
        return [text for one in part for text in _strings(one, key)]
    if not isinstance(part, dict):
        return []
    own = [part[key]] if isinstance(part.get(key), str) else []
    return own + [text for name, one in part.items() if name != "datasets" for text in _strings(one, key)]
