from __future__ import annotations

import math
import random
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import mean_stderr as lm_eval_stderr
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from suite.results.statistics.perplexity import (
    paired_log_ratio,
    paired_log_ratios,
    perplexities_from_nll,
    perplexity_from_nll,
)
from suite.results.statistics.single import mean_share, mean_stderr, proportion, score_mean, seed_spread

# Student's own example (1908): extra hours of sleep from two drugs, ten patients.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_mean_and_interval_on_students_sleep_data() -> None:
    found = mean_stderr(DRUG_1)
    assert found.value == pytest.approx(0.75)
    assert found.stderr == pytest.approx(1.78901 / math.sqrt(10), rel=1e-5)
    # R: t.test(extra[group == 1])$conf.int
    assert (found.low, found.high) == (
        pytest.approx(-0.5297804, rel=1e-6),
        pytest.approx(2.0297804, rel=1e-6),
    )
    assert (found.n, found.status) == (10, "ok")


def test_the_paired_test_on_students_sleep_data() -> None:
    found = paired_log_ratio(DRUG_2, DRUG_1)
    # R: t.test(extra[group == 2], extra[group == 1], paired = TRUE)
    assert found.p_value == pytest.approx(0.00283289, rel=1e-5)
    assert found.value == pytest.approx(math.exp(1.58))
    assert found.low == pytest.approx(math.exp(0.7001142), rel=1e-6)
    assert found.high == pytest.approx(math.exp(2.4598858), rel=1e-6)


losses = st.lists(st.floats(0, 20), min_size=2, max_size=30)


@given(losses)
def test_perplexity_is_what_scipy_says_on_the_log_scale(nll: list[float]) -> None:
    found = perplexity_from_nll(nll)
    assert found.value is not None and found.stderr is not None
    assert found.value == pytest.approx(math.exp(np.mean(nll)))
    # SciPy's own rounding of equal losses is of the order of their last digits.
    rounding = 1e-13 * found.value * max(1.0, *nll)
    assert found.stderr == pytest.approx(found.value * stats.sem(nll), rel=1e-6, abs=1e-9 + rounding)
    if found.stderr > 1e-9:
        low, high = stats.t.interval(0.95, len(nll) - 1, loc=np.mean(nll), scale=stats.sem(nll))
        assert found.low == pytest.approx(math.exp(low), rel=1e-6)
        assert high > 700 or found.high == pytest.approx(math.exp(high), rel=1e-6)


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=2, max_size=30))
def test_the_paired_test_is_scipys(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found, mirrored = paired_log_ratio(a, b), paired_log_ratio(b, a)
    assert found.value is not None and mirrored.value is not None
    assert found.value * mirrored.value == pytest.approx(1)
    assert found.p_value == pytest.approx(mirrored.p_value)
    if np.std(np.subtract(a, b)) > 1e-6:
        assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-4, abs=1e-12)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(3.0, 0.4, size=(2000, 12))
    held = [(e := perplexity_from_nll(row)).low < math.exp(3.0) < e.high for row in draws]  # type: ignore[operator]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_pairing_sees_what_two_intervals_cannot() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(3.0, 0.5, size=40)
    pruned = dense + 0.02 + rng.normal(0, 0.02, size=40)
    alone = perplexity_from_nll(pruned)
    paired = paired_log_ratio(pruned, dense)
    assert alone.low is not None and alone.low < math.exp(dense.mean())
    assert paired.p_value is not None and paired.p_value < 0.001
    assert paired.low is not None and paired.low > 1


def test_a_single_window_gives_a_value_and_no_interval() -> None:
    found = perplexity_from_nll([math.log(25)])
    assert found.value == pytest.approx(25)
    assert (found.stderr, found.low, found.high, found.n, found.status) == (None, None, None, 1, "ok")
    paired = paired_log_ratio([2.0], [1.0])
    assert (paired.value, paired.low, paired.p_value) == (pytest.approx(math.e), None, None)


def test_equal_models_do_not_differ_and_a_constant_gap_is_certain() -> None:
    same = paired_log_ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.value, same.low, same.high, same.p_value) == (1.0, 1.0, 1.0, 1.0)
    shifted = paired_log_ratio([1.5, 2.5, 3.5], [1.0, 2.0, 3.0])
    assert (shifted.value, shifted.p_value) == (pytest.approx(math.exp(0.5)), 0.0)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_window_without_a_finite_loss_gives_no_value_and_says_so(bad: float | None) -> None:
    found = perplexity_from_nll([1.0, bad, 2.0])
    assert (found.value, found.stderr, found.low, found.n) == (None, None, None, 3)
    assert found.status == "not finite: 1 of 3 items"
    paired = paired_log_ratio([1.0, bad], [1.0, 2.0])
    assert (paired.value, paired.p_value) == (None, None)
    assert paired.status.startswith("not finite")


def test_nothing_and_too_much_are_statuses_too() -> None:
    assert mean_stderr([]).status == "no items"
    assert perplexity_from_nll([800.0, 801.0]).status == "overflow: exp of a mean NLL of 800.5"
    assert paired_log_ratio([800.0, 800.0], [1.0, 2.0]).status == "overflow: the losses are too far apart"
    assert perplexity_from_nll([0.0, 700.0]).high is None


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none(), max_size=10))
def test_no_number_that_is_not_finite_comes_out(values: list[float | None]) -> None:
    estimate = perplexity_from_nll(values)
    for number in (estimate.value, estimate.stderr, estimate.low, estimate.high):
        assert number is None or math.isfinite(number)
    assert (estimate.value is None) == (estimate.status != "ok")


def test_models_measured_on_different_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="20 windows cannot be paired with 21"):
        paired_log_ratio([1.0] * 20, [1.0] * 21)


# Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3.
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    found = proportion([True] * right + [False] * (n - right))
    assert found.value == pytest.approx(right / n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_interval_of_a_share_is_what_statsmodels_says(outcomes: list[bool]) -> None:
    found = proportion(outcomes)
    low, high = proportion_confint(sum(outcomes), len(outcomes), method="wilson")
    assert found.low == pytest.approx(low, abs=1e-12) and found.high == pytest.approx(high, abs=1e-12)
    assert found.low is not None and found.value is not None and found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_error_of_a_share_is_lm_evals() -> None:
    outcomes = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    assert proportion(outcomes).stderr == pytest.approx(lm_eval_stderr(outcomes), rel=1e-12)


def test_shares_at_the_ends_and_of_a_single_item_keep_an_interval() -> None:
    wrong, right, one = proportion([0] * 10), proportion([1] * 10), proportion([True])
    assert (wrong.value, wrong.stderr, wrong.low) == (0.0, 0.0, 0.0)
    assert wrong.high is not None and right.low is not None
    assert wrong.high == pytest.approx(1 - right.low) and 0.2 < wrong.high < 0.4
    assert (one.value, one.stderr, one.high, one.n) == (1.0, None, 1.0, 1)
    assert one.low == pytest.approx(0.2065, abs=1e-4)


def test_wilsons_interval_holds_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).random((1500, 40)) < 0.3
    held = [(e := proportion(row)).low <= 0.3 <= e.high for row in draws]  # type: ignore[operator]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_an_item_without_an_outcome_gives_no_share(bad: float | None) -> None:
    found = proportion([1, bad, 0])
    assert (found.value, found.low, found.status) == (None, None, "not finite: 1 of 3 items")
    assert proportion([]).status == "no items"


def test_a_graded_outcome_is_no_share() -> None:
    with pytest.raises(ValueError, match=r"an outcome is 0 \(wrong\) or 1 \(right\), not 0\.5"):
        proportion([1, 0.5, 0])


def test_the_interval_of_a_mean_of_shares_stays_among_shares() -> None:
    for shares in ([0.0, 0.0, 0.3], [1.0, 0.95, 1.0, 0.7]):
        reaching, found = mean_stderr(shares), mean_share(shares)
        assert reaching.low is not None and reaching.high is not None
        assert reaching.low < 0 or reaching.high > 1
        assert (found.low, found.high) == (max(reaching.low, 0.0), min(reaching.high, 1.0))
        assert (found.value, found.stderr, found.n) == (reaching.value, reaching.stderr, reaching.n)
    inside = [0.4, 0.5, 0.6, 0.45, 0.55]
    assert mean_share(inside) == mean_stderr(inside)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_the_interval_of_a_mean_of_shares_is_around_it(shares: list[float]) -> None:
    found = mean_share(shares)
    if found.value is not None and found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1


def test_a_mean_of_shares_has_the_statuses_of_a_mean() -> None:
    assert mean_share([]) == mean_stderr([])
    assert mean_share([0.25]) == mean_stderr([0.25])
    assert mean_share([0.25, None]).status == "not finite: 1 of 2 items"


@pytest.mark.parametrize("beyond", [-0.1, 1.5])
def test_what_is_no_share_has_no_interval_of_shares(beyond: float) -> None:
    with pytest.raises(ValueError, match="a share is from 0 to 1"):
        mean_share([0.5, beyond, 0.25])


def test_the_mean_of_scores_has_the_interval_that_fits_them() -> None:
    outcomes, graded = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.9]
    assert score_mean("acc", outcomes) == score_mean("f1", outcomes) == proportion(outcomes)
    assert score_mean("acc", graded) == score_mean("exact_match", graded) == mean_share(graded)
    assert score_mean("bits", graded) == mean_stderr(graded), "its questions may score above 1 elsewhere"
    assert score_mean("acc", [0.5, 20.0]) == mean_stderr([0.5, 20.0])
    assert score_mean("acc", [0.5, None]) == mean_stderr([0.5, None])
    assert score_mean("acc", []) == mean_stderr([])


def test_the_spread_over_seeds_is_of_the_seeds() -> None:
    found = seed_spread([7.1, 7.3, 7.2, 7.6])
    assert found.mean == pytest.approx(7.3)
    assert found.deviation == pytest.approx(stdev([7.1, 7.3, 7.2, 7.6]))
    assert (found.minimum, found.maximum, found.n, found.status) == (7.1, 7.6, 4, "ok")


def test_one_seed_has_no_spread_and_equal_seeds_have_none_to_speak_of() -> None:
    one, equal = seed_spread([7.1]), seed_spread([0.1] * 3)
    assert (one.mean, one.deviation, one.minimum, one.maximum, one.n) == (7.1, None, 7.1, 7.1, 1)
    assert (equal.mean, equal.deviation) == (0.1, 0.0)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none(), max_size=6))
def test_a_failed_seed_gives_no_spread_and_says_so(values: list[float | None]) -> None:
    found, mirrored = seed_spread(values), seed_spread(values[::-1])
    failed = [value for value in values if value is None or not math.isfinite(value)]
    assert (found.mean is None) == bool(failed or not values) == (found.status != "ok")
    assert (found.minimum, found.maximum, found.n) == (mirrored.minimum, mirrored.maximum, len(values))
    if found.mean is not None and found.minimum is not None and found.maximum is not None:
        assert found.minimum <= found.mean <= found.maximum
        assert found.deviation is None or (math.isfinite(found.deviation) and found.deviation >= 0)


def test_many_models_at_once_are_each_as_alone_to_the_bit() -> None:
    draw = random.Random(3)
    base = [draw.gauss(3, 0.3) for _ in range(37)]
    models: list[list[float | None]] = [[b + draw.gauss(0.2, 0.1) for b in base] for _ in range(9)]
    models += [[*base], [0.0] * 37, [1e308] * 37, [None, *base[1:]], [math.inf, *base[1:]]]
    assert perplexities_from_nll(models) == [perplexity_from_nll(one) for one in models]
    assert paired_log_ratios(models, base) == [paired_log_ratio(one, base) for one in models]
    assert perplexities_from_nll([[], []]) == [perplexity_from_nll([])] * 2
    with pytest.raises(ValueError, match="36 windows cannot be paired with 37"):
        paired_log_ratios([base, base[1:]], base)
