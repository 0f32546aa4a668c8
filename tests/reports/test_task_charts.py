"""The figures of tasks: recovery with its interval, and flips."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.charts import Figure
from reports.charts.drawing import specification
from reports.rankings.recovery import recovery
from suite.results.records.record import Record
from tests.reports.drawn_figures import drawn, measured_figures
from tests.reports.synthetic_measured import N_QUESTIONS, measured_quickstart, measured_record


@pytest.fixture(scope="module")
def measured() -> dict[str, Figure]:
    return measured_figures()


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


def test_a_chart_without_any_interval_is_json() -> None:
    records = [measured_record("dense"), measured_record("wanda")]
    same = tuple(t.model_copy(update={"outcomes": "01" * (t.n // 2)}) for t in records[0].tasks)
    figure = drawn([record.model_copy(update={"tasks": same}).sealed() for record in records])["recovery"]
    assert set(figure.data["recovery %"]) == {100.0}
    assert "NaN" not in json.dumps(specification(figure.chart), allow_nan=False)
    assert "A point without a bar has no interval: no answer flipped." in figure.note


COUNT = st.integers(min_value=0, max_value=500)


@settings(max_examples=200)
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
    with pytest.raises(ValueError, match="must not be negative"):
        recovery(3, -1, 0)


def answered(kind: str, outcomes: str) -> Record:
    """A record that answered one task so."""
    record = measured_record(kind, tasks=("cloze",))
    tasks = tuple(t.model_copy(update={"outcomes": outcomes}) for t in record.tasks)
    return record.model_copy(update={"tasks": tasks}).sealed()


HALF = N_QUESTIONS // 2
DENSE = "1" * HALF + "0" * HALF


def test_the_title_of_flips_tells_losses_from_gains() -> None:
    loses = answered("wanda", "0" * 12 + "1" * (HALF - 12) + "0" * HALF)
    gains = answered("sparsegpt", "0" * 10 + "1" * (HALF - 10) + "1" * 40 + "0" * (HALF - 40))
    title = drawn([answered("dense", DENSE), loses, gains])["flips"].title
    assert title == (
        "wanda lost most: on cloze-0shot 6.0 % of the answers from right to wrong, "
        "and gained 0.0 % from wrong to right"
    )
    better = answered("sparsegpt", "1" * (HALF + 40) + "0" * (HALF - 40))
    only_gains = drawn([answered("dense", DENSE), answered("wanda", DENSE), better])["flips"].title
    assert only_gains == ("No answer went from right to wrong; sparsegpt gained most: 20.0 % on cloze-0shot")


def test_what_all_keep_is_said_once() -> None:
    records = [answered("dense", DENSE), answered("wanda", DENSE), answered("sparsegpt", DENSE)]
    figure = drawn(records)["recovery"]
    assert figure.title == "Accuracy kept: 100 % of dense in all 2 comparisons"
    assert "(no interval; n in the panel's title)" in figure.note
    assert "bars" not in figure.note
