"""The figures of cost: the Pareto views and the seconds by phase."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.charts import Figure
from reports.charts.pareto import frontier
from suite.results.records.record import PhaseCost, Record
from tests.reports.drawn_figures import drawn, measured_figures, rows_of
from tests.reports.synthetic import ENVIRONMENT, make_record, quickstart
from tests.reports.synthetic_measured import finished_checkpoint, measured_record

LARGER = ENVIRONMENT.model_copy(update={"processor": "another processor", "threads": 16})
KINDS = "measured on 2 kinds of machine, thread counts or placements"


@pytest.fixture(scope="module")
def measured() -> dict[str, Figure]:
    return measured_figures()


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


def test_phases_do_not_count_what_encloses_them_twice() -> None:
    spent = {"load": 9, "calibrate": 1, "prune": 12, "statistics": 5, "solve": 4, "propagate": 2, "check": 1}
    spent |= {"evaluate a": 30, "evaluate b": 20, "speed": 7}
    phases = tuple(PhaseCost(name=name, seconds=seconds) for name, seconds in spent.items())
    figure = drawn([make_record("wanda", phases=phases)])["phases"]
    (row,) = figure.data.to_dict("records")
    assert row["prune time"] == 11 and row["rest of the prune"] == 1
    assert (row["tasks"], row["speed"]) == (50, 7)
    (shown,) = rows_of(figure)
    assert shown["whole"] == 14
    assert not {"load", "tasks", "speed", "prune"} & shown.keys()
    assert "wanda takes: 11.0\u00a0s of prune time, 45 % of it statistics" in figure.title


def timed(**seconds: float) -> Record:
    """A record of wanda with these phases, in this order."""
    phases = tuple(PhaseCost(name=n.replace("_", " "), seconds=s) for n, s in seconds.items())
    return make_record("wanda", phases=phases)


def test_a_title_is_about_the_methods_whose_cost_is_known() -> None:
    untimed = make_record("sparsegpt", phases=())
    records = [untimed, make_record("wanda"), make_record("barber-wanda", ppl_factor=1.2)]
    figure = drawn(records)["time"]
    assert figure.title == (
        "wanda has both the lowest perplexity and the shortest prune time at 50\u00a0% unstructured "
        "(of the 2 methods whose prune time is known)"
    )
    assert list(figure.data["rank"]) == [2, 3]
    assert "Left out: 1 method whose prune time was not recorded." in figure.note
    several = drawn([untimed, make_record("wanda"), make_record("magnitude")])["time"]
    assert several.title.startswith("No method beats wanda or magnitude in both perplexity and prune time")
    assert several.title.endswith("(of the 2 methods whose prune time is known)")
    whole = drawn(records[1:])["time"]
    assert "known" not in whole.title and "Left out" not in whole.note


def test_counted_frontiers_are_of_the_methods_whose_cost_is_known() -> None:
    records = [make_record("sparsegpt", "0.8", phases=())]
    for i, pattern in enumerate(("0.5", "0.6", "0.7", "0.8")):
        records += [make_record(kind, pattern) for kind in ("magnitude", "wanda", "barber-wanda")[: i + 1]]
    title = drawn(records)["time"].title
    assert "magnitude in 4 of 4 patterns" in title
    assert title.endswith("(of the methods whose prune time is known)")


def test_a_finished_checkpoint_has_no_cost_of_pruning() -> None:
    pruned = [measured_record(k, parts=("divergence", "tasks")) for k in ("sparsegpt", "barber-wanda")]
    found = drawn([measured_record("dense", parts=("tasks",)), *pruned, finished_checkpoint()])
    for name, why in {
        "time": "not pruned here",
        "memory": "of which only the memory of evaluating is known",
        "phases": "not pruned here",
    }.items():
        assert not any("checkpoint" in method for method in found[name].data["method"])
        assert f"Left out: 1 finished checkpoint, {why}." in found[name].note
    assert "(of the 2 methods whose host memory is known)" in found["memory"].title
    assert "memory" not in drawn([measured_record("dense", parts=("tasks",)), finished_checkpoint()])


def test_machines_are_not_compared_silently() -> None:
    fast = make_record("barber-wanda", environment=LARGER, phases=(PhaseCost(name="solve", seconds=0.1),))
    found = drawn([make_record("dense"), make_record("wanda"), make_record("sparsegpt"), fast])
    assert found["time"].title == f"Perplexity against prune time, {KINDS}"
    assert found["phases"].title == f"Prune time by phase, {KINDS}"
    (barber,) = (name for name in found["time"].data["method"] if "barber" in name)
    for name in ("time", "phases"):
        assert f"{KINDS[0].upper()}{KINDS[1:]}: times" in found[name].note
        assert "comparable only within one of them" in found[name].note
        machine = dict(zip(found[name].data["method"], found[name].data["machine"], strict=True))
        assert machine["wanda"] == machine["sparsegpt"] != machine[barber]
    # wanda is slower than what the larger machine took, and still the fastest on its own.
    assert set(found["time"].data["on the frontier"]) == {"yes"}
    steps = [
        layer for layer in found["time"].chart.to_dict()["spec"]["layer"] if "detail" in layer["encoding"]
    ]
    assert [layer["encoding"]["detail"]["field"] for layer in steps] == ["machine"]


def test_layers_that_were_onloaded_count_as_another_machine() -> None:
    records = [make_record("dense"), make_record("wanda"), make_record("sparsegpt", placement="onload")]
    machine = drawn(records)["time"].data
    of_method = dict(zip(machine["method"], machine["machine"], strict=True))
    assert of_method["wanda"] != of_method["sparsegpt"]


def test_one_machine_a_pattern_leaves_the_frontiers_as_they_are() -> None:
    records = [make_record("wanda"), make_record("sparsegpt")]
    records += [make_record(kind, "2:4", environment=LARGER) for kind in ("wanda", "sparsegpt")]
    found = drawn(records)
    assert found["time"].title.startswith("No method beats sparsegpt or wanda")
    assert KINDS[1:] in found["time"].note and KINDS in found["phases"].title
    for figure in drawn(records[:2]).values():
        assert "kinds of machine" not in figure.title + figure.note
        assert "machine" not in figure.data.columns


def test_phases_of_other_names_are_one_and_count_once() -> None:
    record = timed(
        dense_reference=40, calibrate=1, prune=12, statistics=5, rotate=3, solve=2, mend=1, check=1, load=9
    )
    figure = drawn([record])["phases"]
    (row,) = figure.data.to_dict("records")
    assert (row["other"], row["rest of the prune"], row["dense reference"]) == (4, 1, 40)
    (shown,) = rows_of(figure)
    assert shown["whole"] == 14 and shown["other"] == 4
    assert "Other, last: phases that only some methods have." in figure.note
    assert "Other" not in drawn([make_record("wanda")])["phases"].note


def test_every_phase_has_a_look_of_its_own_from_the_style() -> None:
    record = timed(
        calibrate=1, allocate=2, prune=12, statistics=5, rotate=3, solve=2, propagate=1, check=1, speed=9
    )
    figure = drawn([record])["phases"]
    (shown,) = rows_of(figure)
    assert shown["allocate"] == 2 and shown["whole"] == 16
    encoding = figure.chart.to_dict()["spec"]["layer"][0]["encoding"]
    fills, outlines = (encoding[name]["scale"]["range"] for name in ("color", "stroke"))
    assert len(set(fills)) == len(fills) == len(outlines) == 8
    style = Path("reports/templates/style.css").read_text(encoding="utf-8")
    assert all(re.search(rf"{name}: #", style) for fill in fills for name in re.findall(r"--[\w-]+", fill))
    pale = [outline for fill, outline in zip(fills, outlines, strict=True) if "phase" not in fill]
    assert set(pale) == {"var(--muted)"}


def test_the_longest_is_of_those_whose_prune_time_is_known() -> None:
    records = [make_record("sparsegpt", phases=()), make_record("wanda"), make_record("magnitude")]
    figure = drawn(records)["phases"]
    assert "wanda takes longest of the 2 methods whose prune time is known: 12.3" in figure.title
    assert "Left out: 1 method whose prune time was not recorded." in figure.note


def test_one_window_is_counted_as_one_and_promises_no_bars() -> None:
    records = [make_record(kind, p, n_windows=1) for kind in ("wanda", "sparsegpt") for p in ("0.5", "2:4")]
    found = drawn(records)
    assert "(n = 1 window, no interval)" in found["time"].note
    assert "(no interval; n in the panel's title)" in found["quality"].note
    assert "bars" not in found["time"].note + found["quality"].note
    assert "(n = 20 windows, bars: 95 % interval)" in drawn(quickstart())["time"].note
