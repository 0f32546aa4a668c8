"""Two models on the same items: resampled differences, flips, and p-values of many comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from suite.results.statistics.paired import FEWEST_RESAMPLED, holm, mcnemar, paired_bootstrap
from suite.results.statistics.single import proportion

# Darwin's maize, crossed minus self-fertilized, in eighths of an inch (Fisher, The Design of Experiments).
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

values = st.floats(-100, 100)
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=20)
answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def split(items: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [a for a, _ in items], [b for _, b in items]


def quickly(a: list[float], b: list[float]) -> Any:
    return paired_bootstrap(a, b, n_resamples=200)


def test_the_sign_flips_are_fishers_on_darwins_maize() -> None:
    found = paired_bootstrap(MAIZE, [0] * 15, n_resamples=2**15)
    # Fisher counts 863 of the 32,768 arrangements whose sum is as great or greater.
    assert found.p_value == pytest.approx(2 * 863 / 2**15)
    assert found.value == pytest.approx(np.mean(MAIZE))
    assert (found.n, found.interval, found.status) == (15, "bca", "ok")


def test_the_interval_is_scipys_of_the_paired_means() -> None:
    rng = np.random.default_rng(1)
    a = rng.lognormal(size=60)
    b = a - rng.exponential(0.3, size=60)
    found = paired_bootstrap(a, b)
    theirs = stats.bootstrap(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), paired=True, vectorized=True, rng=rng
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_interval_holds_the_truth_of_skewed_differences_nearly_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).exponential(1.0, size=(300, 30))
    held = [
        (e := paired_bootstrap(row, [0.0] * 30, n_resamples=600)).low <= 1.0 <= e.high  # type: ignore[operator]
        for row in draws
    ]
    assert np.mean(held) == pytest.approx(0.94, abs=0.03)


def test_equal_models_are_seldom_told_apart() -> None:
    draws = np.random.default_rng(0).standard_t(3, size=(400, 9))
    p = [paired_bootstrap(row, [0.0] * 9, n_resamples=2**9).p_value for row in draws]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.025)


@settings(max_examples=40)
@given(pairs)
def test_swapping_the_models_mirrors_everything(items: list[tuple[float, float]]) -> None:
    a, b = split(items)
    found, swapped = quickly(a, b), quickly(b, a)
    assert found.value == -swapped.value
    assert found.p_value == swapped.p_value and 0 < found.p_value <= 1
    if found.low is not None:
        assert (found.low, found.high) == (-swapped.high, -swapped.low)
        assert found.low <= found.high


@settings(max_examples=40)
@given(pairs, st.randoms())
def test_the_order_of_the_items_does_not_matter(items: list[tuple[float, float]], random: Any) -> None:
    shuffled = random.sample(items, len(items))
    assert quickly(*split(items)) == quickly(*split(shuffled))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=10))
def test_no_number_that_is_not_finite_comes_out(items: list[tuple[float, float]]) -> None:
    found = quickly(*split(items))
    for number in (found.value, found.low, found.high, found.p_value):
        assert number is None or math.isfinite(number)
    assert (found.value is None) == (found.status != "ok")
    assert (found.low is None) == (found.high is None) == (found.interval is None)


def test_a_seed_decides_the_resamples() -> None:
    a, b = [float(x) for x in MAIZE], [0.0] * 15
    assert quickly(a, b) == quickly(a, b)
    assert paired_bootstrap(a, b, n_resamples=200, seed=1) != quickly(a, b)


def test_the_constant_gap_and_no_gap_at_all_have_an_outcome() -> None:
    gap, none = (
        paired_bootstrap([1.5, 2.5, 3.5] * 4, [1.0, 2.0, 3.0] * 4),
        paired_bootstrap([2.0] * 8, [2.0] * 8),
    )
    assert (gap.value, gap.low, gap.high, gap.interval) == (0.5, 0.5, 0.5, "percentile")
    assert gap.p_value == pytest.approx(2 / 2**12)
    assert (none.value, none.low, none.high, none.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert math.copysign(1, none.value or 0.0) == 1


def test_few_pairs_have_a_p_value_that_cannot_be_small_and_no_interval() -> None:
    few = paired_bootstrap([1.0, 2.0, 1.5, 1.2, 1.1], [0.0] * 5)
    assert (few.low, few.high, few.interval, few.p_value) == (None, None, None, pytest.approx(2 / 2**5))
    enough = paired_bootstrap([1.0, 2.0, 1.5, 1.2, 1.1, 1.3], [0.0] * FEWEST_RESAMPLED)
    assert enough.low is not None and enough.p_value == pytest.approx(2 / 2**6)
    one = paired_bootstrap([2.0], [1.0])
    assert (one.value, one.low, one.p_value, one.status) == (1.0, None, None, "ok")


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_an_item_without_a_number_gives_no_difference_and_no_flips(bad: float | None) -> None:
    found, flips = paired_bootstrap([1.0, bad, 2.0], [1.0, 2.0, 3.0]), mcnemar([1, bad, 0], [1, 1, 0])
    assert (found.value, found.p_value, found.n, found.status) == (None, None, 3, "not finite: 1 of 6 items")
    assert (flips.right_to_wrong, flips.p_value, flips.lost.value, flips.n) == (None, None, None, 3)
    assert flips.status == flips.lost.status == "not finite: 1 of 6 items"


def test_nothing_and_too_much_are_statuses_too() -> None:
    assert paired_bootstrap([], []).status == mcnemar([], []).status == "no items"
    assert paired_bootstrap([1e308] * 8, [-1e308] * 8).status == "overflow: the items are too far apart"


def test_models_measured_on_different_items_are_refused() -> None:
    for compare in (paired_bootstrap, mcnemar):
        with pytest.raises(ValueError, match="2 items cannot be paired with 3"):
            compare([1.0, 0.0], [1.0, 0.0, 1.0])  # type: ignore[operator]


def test_flips_are_counted_and_tested() -> None:
    before = [1] * 30 + [0] * 20
    after = [1] * 29 + [0] + [1] * 9 + [0] * 11
    found = mcnemar(before, after)
    assert (found.right_to_wrong, found.wrong_to_right, found.n, found.status) == (1, 9, 50, "ok")
    # Of ten flips one or none went that way: (1 + 10) / 2^10, twice.
    assert found.p_value == pytest.approx(22 / 1024)
    assert found.lost == proportion([1] + [0] * 49)
    assert found.gained == proportion([1] * 9 + [0] * 41)
    assert found.changed == proportion([1] * 10 + [0] * 40)


def test_the_exact_test_is_the_binomial_one_on_agrestis_table() -> None:
    # Agresti, Categorical Data Analysis: approval of the prime minister, 794 both times, 570 neither time.
    first = [1] * 794 + [1] * 150 + [0] * 86 + [0] * 570
    second = [1] * 794 + [0] * 150 + [1] * 86 + [0] * 570
    found = mcnemar(first, second)
    assert (found.right_to_wrong, found.wrong_to_right, found.n) == (150, 86, 1600)
    assert found.p_value == pytest.approx(stats.binomtest(86, 236).pvalue, rel=1e-9)


def test_without_flips_nothing_is_shown() -> None:
    found = mcnemar([1, 0, 1], [True, False, True])
    assert (found.right_to_wrong, found.wrong_to_right, found.p_value) == (0, 0, 1.0)


@given(answers, st.randoms())
def test_flips_mirror_and_do_not_depend_on_the_order(items: list[tuple[bool, bool]], random: Any) -> None:
    a, b = split(items)
    found, swapped = mcnemar(a, b), mcnemar(b, a)
    shuffled = mcnemar(*split(random.sample(items, len(items))))
    for name in ("right_to_wrong", "wrong_to_right", "p_value", "n"):
        assert getattr(shuffled, name) == getattr(found, name)
    assert (shuffled.changed.low, shuffled.changed.high) == (found.changed.low, found.changed.high)
    assert (found.lost, found.gained, found.changed) == (swapped.gained, swapped.lost, swapped.changed)
    assert found.p_value == swapped.p_value and found.p_value is not None and 0 < found.p_value <= 1
    assert found.right_to_wrong is not None and found.wrong_to_right is not None
    assert found.right_to_wrong - found.wrong_to_right == sum(a) - sum(b)


def test_a_graded_answer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not 0\.5"):
        mcnemar([1, 0.5], [1, 0])


def test_holms_adjustment_of_a_family_of_four() -> None:
    # By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.04 raised to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_tests_that_were_not_made_do_not_count() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([]) == [] and holm([None]) == [None]
    assert holm([0.2]) == [0.2]


@settings(max_examples=8)  # statsmodels collects garbage on every call
@given(st.lists(st.floats(0, 1) | st.none(), max_size=12))
def test_an_adjusted_p_value_is_one_and_never_smaller(p_values: list[float | None]) -> None:
    adjusted = holm(p_values)
    assert len(adjusted) == len(p_values)
    for raw, held in zip(p_values, adjusted, strict=True):
        assert (raw is None) == (held is None)
        assert raw is None or held is None or raw <= held <= 1
    assert holm(p_values[::-1]) == adjusted[::-1]


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="a p-value lies in"):
        holm([0.5, bad])
