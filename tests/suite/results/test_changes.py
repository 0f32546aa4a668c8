"""Steps, drifts and outliers in a series, and nothing where there is nothing."""

import numpy as np
import pytest

from suite.results.history.changes import find_changes

NOISE = np.random.default_rng(7).normal(size=200)


def steps(values, tolerance=0.01):
    return [(c.kind, c.at) for c in find_changes(list(values), tolerance=tolerance).changes]


def outliers(values, tolerance=0.01):
    return [(o.index, o.edge) for o in find_changes(list(values), tolerance=tolerance).outliers]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [10.0],
        [10.0, 11.0],
        [10.0] * 20,
        [0.0] * 20,
        10 + 1e-15 * NOISE[:20],
        10 + 0.5 * NOISE[:40],
        [10.0] * 6 + [10.08] * 14,
        [10 * 1.0005**i for i in range(10)],
    ],
    ids=["none", "one", "two", "constant", "zeros", "last bits", "noise", "small step", "small drift"],
)
def test_where_nothing_happened_nothing_is_found(values):
    found = find_changes(list(values), tolerance=0.01)
    assert found.changes == ()
    assert found.outliers == ()


def test_a_step_of_a_series_without_noise_is_certain():
    (change,) = find_changes([10.0, 10.0, 11.0, 11.0], tolerance=0.01).changes
    assert (change.kind, change.start, change.at) == ("step", 1, 2)
    assert (change.before, change.after, change.p_value) == (10, 11, 0)
    assert change.relative == pytest.approx(0.1)


def test_every_step_is_found_where_it_is():
    assert steps([10.0] * 5 + [10.5] * 5 + [9.8] * 5) == [("step", 5), ("step", 10)]
    assert steps([10.0] * 5 + [1e6] * 5 + [1.05e6] * 5) == [("step", 5), ("step", 10)]
    assert steps([0.0] * 5 + [0.1] * 5) == [("step", 5)]
    assert steps([-1.0] * 5 + [-2.0] * 5) == [("step", 5)]


def test_a_step_in_noise_is_found_where_it_is():
    values = np.where(np.arange(60) < 30, 10, 10.5) + 0.1 * NOISE[:60]
    assert steps(values) == [("step", 30)]
    assert steps([10.1, 9.9, 12.0, 12.2]) == [("step", 2)]


def test_a_step_below_the_tolerance_is_not_marked_however_sure_it_is():
    values = [10.0] * 10 + [10.3] * 10
    assert steps(values, tolerance=0.031) == steps(values, tolerance=0.5) == []
    assert steps(values, tolerance=0.029) == [("step", 10)]


def test_a_lone_value_is_an_outlier_and_not_a_change():
    values = [10.0, 10.0, 15.0, 10.0, 10.0]
    assert steps(values) == []
    (outlier,) = find_changes(values, tolerance=0.01).outliers
    assert (outlier.index, outlier.value, outlier.expected, outlier.edge) == (2, 15, 10, "")
    assert outlier.relative == pytest.approx(0.5)
    noisy = 10 + 0.05 * NOISE[:30] + np.where(np.arange(30) == 12, 2, 0)
    assert steps(noisy) == []
    assert outliers(noisy) == [(12, "")]


def test_two_values_off_are_a_change_and_a_change_back():
    assert steps([10.0, 10.0, 15.0, 15.0, 10.0, 10.0]) == [("step", 2), ("step", 4)]


def test_an_outlier_beside_a_step_hides_neither():
    values = [10.0, 10.0, 10.0, 15.0, 12.0, 12.0, 12.0]
    assert outliers(values) == [(3, "")]
    assert steps(values) == [("step", 4)]


def test_the_last_value_alone_is_not_yet_a_change():
    assert outliers([10.0, 10.0, 10.0, 15.0]) == [(3, "last")]
    assert steps([10.0, 10.0, 10.0, 15.0]) == []
    assert steps([10.0, 10.0, 10.0, 15.0, 15.0]) == [("step", 3)]
    assert outliers([15.0, 10.0, 10.0, 10.0]) == [(0, "first")]
    assert outliers([10.0, 10.1, 10.3]) == [], "two differences say nothing sure about noise"


def test_small_steps_that_add_up_are_a_drift():
    (change,) = find_changes([10 * 1.003**i for i in range(10)], tolerance=0.01).changes
    assert change.kind == "drift"
    assert change.start == 0
    assert 1.01 < 1.003**change.at < 1.02
    assert change.relative is not None and 0.02 < change.relative < 0.03


def test_a_drift_in_noise_is_a_drift_and_no_staircase():
    values = 10 * np.linspace(1, 1.03, 60) * (1 + 0.005 * NOISE[:60])
    (change,) = find_changes(list(values), tolerance=0.01).changes
    assert change.kind == "drift"
    assert change.relative == pytest.approx(0.025, abs=0.008)


def test_a_drift_that_ended_is_found_in_full():
    values = [10.0] * 20 + [10 * 1.003**i for i in range(10)] + [10 * 1.003**9] * 20
    changes = find_changes(values, tolerance=0.01).changes
    assert changes
    assert all(20 <= change.at <= 30 for change in changes)
    assert changes[0].before == pytest.approx(10, rel=0.002)
    assert changes[-1].after == pytest.approx(10 * 1.003**9, rel=0.002)


def test_noise_alone_rarely_shows_a_change():
    draws = np.random.default_rng(3).normal(size=(500, 12))
    found = [find_changes(list(10 + 0.5 * draw), tolerance=0.01) for draw in draws]
    assert sum(bool(one.changes) for one in found) <= 20
    assert sum(bool(one.outliers) for one in found) <= 10


def test_the_noise_is_that_of_the_values_whatever_their_level_does():
    values = np.where(np.arange(200) < 70, 10, 20) + 0.3 * NOISE
    assert find_changes(list(values), tolerance=0.01).noise == pytest.approx(0.3, rel=0.25)


@pytest.mark.parametrize(("values", "tolerance"), [([1.0, float("nan"), 1.0], 0.01), ([1.0, 1.0, 1.0], -0.1)])
def test_what_makes_no_sense_is_refused(values, tolerance):
    with pytest.raises(ValueError, match=r"needed|tolerance"):
        find_changes(values, tolerance=tolerance)


def test_a_value_near_the_end_of_floats_does_no_harm():
    assert outliers([10.0, 10.0, 10.0, 1e300, 10.0, 10.0]) == [(3, "")]
