"""Whether two measures order the same things alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.results.statistics.correlation import rank_correlation

pairs = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=15)


def split(items: list[tuple[int, int]]) -> tuple[list[float], list[float]]:
    return [float(a) for a, _ in items], [float(b) for _, b in items]


def test_rho_without_ties_is_one_minus_six_sums_of_squares() -> None:
    x, y = [1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 7, 8, 5, 6]
    found = rank_correlation(x, y)
    squares = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    assert found.value == pytest.approx(1 - 6 * squares / (8 * 63))
    assert found.low is not None and found.high is not None and found.value is not None
    # Bonett and Wright: z plus or minus 1.96 standard errors.
    reach = 1.959964 * math.sqrt((1 + found.value**2 / 2) / 5)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(reach, rel=1e-6)
    assert math.atanh(found.value) - math.atanh(found.low) == pytest.approx(reach, rel=1e-6)


def test_ties_share_their_rank() -> None:
    x, y = [1.0, 2.0, 2.0, 3.0, 5.0], [1.0, 1.0, 2.0, 4.0, 3.0]
    assert rank_correlation(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize(("n", "r"), [(8, 0.7), (12, 0.3), (25, 0.9)])
def test_the_interval_holds_the_truth_as_often_as_it_says(n: int, r: float) -> None:
    truth = 6 / math.pi * math.asin(r / 2)  # Spearman's rho of a bivariate normal with correlation r
    draws = np.random.default_rng(0).multivariate_normal([0, 0], [[1, r], [r, 1]], size=(500, n))
    found = [rank_correlation(draw[:, 0], draw[:, 1]) for draw in draws]
    held = [e.low <= truth <= e.high for e in found if e.low is not None and e.high is not None]
    assert np.mean(held) == pytest.approx(0.955, abs=0.025)


@given(pairs, st.randoms())
def test_neither_the_order_of_items_nor_that_of_measures_matters(items: Any, random: Any) -> None:
    x, y = split(items)
    found = rank_correlation(x, y)
    for same in (rank_correlation(y, x), rank_correlation(*split(random.sample(items, len(items))))):
        assert (same.n, same.status) == (found.n, found.status)
        assert same.value == pytest.approx(found.value, abs=1e-9)
    against = rank_correlation(x, [-value for value in y])
    assert against.value == (None if found.value is None else pytest.approx(-found.value, abs=1e-9))
    if found.low is not None and found.high is not None and found.value is not None:
        assert -1 <= found.low <= found.value <= found.high <= 1
        assert against.low == pytest.approx(-found.high, abs=1e-9)


def test_orders_that_agree_entirely_have_no_interval() -> None:
    agree, oppose = (
        rank_correlation([1, 2, 3, 4, 5], [10, 20, 30, 40, 1000]),
        rank_correlation(range(5), range(5, 0, -1)),
    )
    assert (agree.value, agree.low, agree.high, agree.status) == (1.0, None, None, "ok")
    assert (oppose.value, oppose.low) == (-1.0, None)
    assert rank_correlation([1, 2, 3], [1, 3, 2]).low is None


def test_what_has_no_order_gives_no_rho_and_says_so() -> None:
    assert rank_correlation([], []).status == "no items"
    assert rank_correlation([1], [2]).status == "a single item has no order"
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).status == "all values of one measure are equal"
    for bad in (None, math.nan, math.inf):
        found = rank_correlation([1, bad, 3], [1, 2, 3])
        assert (found.value, found.low, found.n, found.status) == (None, None, 3, "not finite: 1 of 6 items")


def test_measures_of_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="2 items cannot be paired with 3"):
        rank_correlation([1, 2], [1, 2, 3])
