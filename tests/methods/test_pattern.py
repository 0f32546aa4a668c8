"""Patterns are read exactly, and exactly what they say is removed."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.errors import InputError, NonFiniteError
from methods.masks.pattern import SemiStructured, Unstructured, parse_pattern
from methods.masks.selection import (
    kth_lowest,
    kth_lowest_in_parallel,
    prune_lowest,
    prune_n_of_m,
    require_finite,
    up_to,
)
from methods.scores.magnitude import magnitude_keep
from tests.methods import oracles

TIED = st.sampled_from([0.0, 0.25, 1.0, 1.5])
ANY = st.floats(-(2.0**99), 2.0**99, width=32)


@st.composite
def score_rows(draw, columns=st.integers(1, 12), rows=st.integers(1, 6)):
    """fp32 `[rows, columns]`, in half of the cases full of ties and zeros."""
    shape = (draw(rows), draw(columns))
    return draw(hnp.arrays(np.float32, shape, elements=draw(st.sampled_from([TIED, ANY]))))


@st.composite
def scores_by_group(draw):
    """N:M, and fp32 scores whose width M divides."""
    m = draw(st.integers(1, 8))
    pattern = SemiStructured(draw(st.integers(1, m)), m)
    return pattern, draw(score_rows(columns=st.integers(1, 4).map(lambda groups: groups * m)))


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("0.5", Unstructured(Fraction(1, 2))),
        (0.5, Unstructured(Fraction(1, 2))),
        (" 0.29 ", Unstructured(Fraction(29, 100))),
        (0.29, Unstructured(Fraction(29, 100))),
        ("50%", Unstructured(Fraction(1, 2))),
        ("33.3%", Unstructured(Fraction(333, 1000))),
        (".7", Unstructured(Fraction(7, 10))),
        ("5e-1", Unstructured(Fraction(1, 2))),
        ("+0.5", Unstructured(Fraction(1, 2))),
        ("0", Unstructured(Fraction(0))),
        (0, Unstructured(Fraction(0))),
        ("0.", Unstructured(Fraction(0))),
        ("2:4", SemiStructured(2, 4)),
        ("1:4", SemiStructured(1, 4)),
        ("4:4", SemiStructured(4, 4)),
        ("16:32", SemiStructured(16, 32)),
    ],
)
def test_a_pattern_is_read_as_it_is_written(text, pattern):
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither"),
        ("half", "neither"),
        ("nan", "neither"),
        (float("nan"), "neither"),
        ("inf", "neither"),
        (float("inf"), "neither"),
        ("1/2", "neither"),
        ("0,5", "neither"),
        ("0.5.1", "neither"),
        ("2:4:8", "neither"),
        ("2 : 4", "neither"),
        ("-2:4", "neither"),
        ("2:", "neither"),
        ("0x1", "neither"),
        (True, "neither"),
        ("1e999999999", "neither"),
        ("1e-999999999", "neither"),
        ("1", r"outside \[0, 1\)"),
        ("100%", r"outside \[0, 1\)"),
        ("-0.1", r"outside \[0, 1\)"),
        ("50", r"outside \[0, 1\)"),
        ("1e99", r"outside \[0, 1\)"),
        ("4:2", "did you mean 2:4"),
        ("0:4", "N must be from 1 to M"),
        ("2:0", "N must be from 1 to M"),
        ("0:0", "N must be from 1 to M"),
    ],
)
def test_what_is_no_pattern_is_refused_in_one_line(text, said):
    with pytest.raises(InputError, match=said) as raised:
        parse_pattern(text)
    assert "\n" not in str(raised.value)


@given(st.text() | st.from_regex(r"[-+]?[0-9]{0,3}[.:]?[0-9]{0,3}(e-?[0-9]{1,4})?%?", fullmatch=True))
@example("1" * 5000)
@example("0." + "3" * 5000)
@example("1" + "0" * 400)
@example("9" * 5000 + ":4")
def test_any_text_is_a_pattern_or_an_input_error(text):
    try:
        pattern = parse_pattern(text)
    except InputError:
        return
    assert 0 <= pattern.target <= 1


@pytest.mark.parametrize(
    ("text", "group", "pruned"),
    [
        ("0.29", 100, 29),
        ("0.57", 100, 57),
        ("0.58", 100, 58),
        ("0.1", 30, 3),
        ("0.7", 10, 7),
        ("0.5", 5, 2),
        ("0.999", 999, 998),
        ("0", 7, 0),
        ("29%", 100, 29),
        ("0.29", 100_000_000, 29_000_000),
    ],
)
def test_the_share_of_a_group_is_taken_exactly(text, group, pruned):
    assert parse_pattern(text).n_pruned(group) == pruned


@given(st.decimals(0, "0.99999999", places=8), st.integers(0, 10**12))
def test_a_share_is_never_more_and_less_than_one_weight_below(written, group):
    exact = Fraction(written) * group
    assert 0 <= exact - parse_pattern(f"{written:f}").n_pruned(group) < 1


@given(st.decimals(0, "0.99999999", places=8).map(lambda d: f"{d:f}") | st.sampled_from(["2:4", "1:4"]))
def test_what_is_printed_reads_as_the_same_pattern(text):
    pattern = parse_pattern(text)
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize("text", ["0.9999999999999", "0.1234567890123456", "1e-20"])
def test_no_digit_of_a_long_sparsity_is_lost_in_print(text):
    assert parse_pattern(str(parse_pattern(text))) == parse_pattern(text)


@pytest.mark.parametrize(
    ("text", "group", "pruned", "target"), [("2:4", 16, 8, 0.5), ("1:4", 16, 12, 0.75), ("4:4", 8, 0, 0)]
)
def test_n_counts_the_survivors(text, group, pruned, target):
    pattern = parse_pattern(text)
    assert pattern.n_pruned(group) == pruned
    assert pattern.target == target


def test_a_width_that_m_does_not_divide_is_refused_by_name():
    parse_pattern("2:4").check_divides("layers.0.q_proj", 64)
    with pytest.raises(InputError, match=r"2:4: 4 does not divide the 66 inputs of layers\.0\.q_proj"):
        parse_pattern("2:4").check_divides("layers.0.q_proj", 66)


@settings(max_examples=300)
@given(score_rows(), st.data())
def test_the_lowest_go_and_of_equals_the_earlier(scores, data):
    k = data.draw(st.integers(0, scores.shape[1]), label="k")
    expected = np.array([oracles.drop_lowest(row.tolist(), k) for row in scores])
    keep = prune_lowest(torch.from_numpy(scores), k)
    assert keep.dtype == torch.bool
    assert np.array_equal(keep.numpy(), expected)


@pytest.mark.parametrize("k", [0, 1, 4, 7])
@pytest.mark.parametrize("shape", [(1, 7), (3, 7), (40, 7)])
def test_where_all_scores_are_equal_the_first_k_go(shape, k):
    keep = prune_lowest(torch.zeros(shape), k)
    assert keep.tolist() == [[False] * k + [True] * (7 - k)] * shape[0]


def test_rows_with_and_without_ties_are_settled_side_by_side():
    scores = torch.tensor([[1.0, 1.0, 1.0, 2.0], [4.0, 3.0, 2.0, 1.0], [0.0, -0.0, 0.0, -0.0]])
    assert prune_lowest(scores, 2).tolist() == [
        [False, False, True, True],
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_a_large_tied_group_loses_exactly_its_share():
    scores = torch.arange(300_000).remainder(16).float()
    k = 150_001
    keep = prune_lowest(scores[None], k)[0]
    assert int((~keep).sum()) == k
    order = torch.sort(scores, stable=True).indices
    assert not keep[order[:k]].any()


@settings(max_examples=300)
@given(score_rows(columns=st.integers(1, 40)), st.data())
def test_a_gpu_finds_the_same_threshold_and_removes_the_same(scores, data):
    k = data.draw(st.integers(1, scores.shape[1]), label="k")
    rows = torch.from_numpy(scores)
    threshold = kth_lowest_in_parallel(rows, k)
    assert threshold.shape == (len(rows), 1)
    assert torch.equal(threshold, kth_lowest(rows, k))
    assert torch.equal(~up_to(rows, threshold, k), prune_lowest(rows, k))


def test_a_row_too_long_to_be_sorted_on_a_gpu_is_searched(monkeypatch):
    scores = torch.rand(1, 1000, generator=torch.Generator().manual_seed(1)).mul(64).round()
    sorted_out = kth_lowest_in_parallel(scores, 400)
    monkeypatch.setattr("methods.masks.selection.LONGEST_SORTED", 999)
    assert torch.equal(kth_lowest_in_parallel(scores, 400), sorted_out)


@settings(max_examples=300)
@given(scores_by_group())
def test_the_n_highest_of_every_m_survive_and_of_equals_the_later(case):
    pattern, scores = case
    expected = oracles.keep_in_groups_of_m(scores, pattern.n, pattern.m)
    assert np.array_equal(prune_n_of_m(torch.from_numpy(scores), pattern).numpy(), expected)


@pytest.mark.parametrize("m", [128, 256, 257, 300, 512])
def test_groups_may_be_as_wide_as_a_row(m):
    scores = torch.rand(3, m, generator=torch.Generator().manual_seed(m))
    pattern = SemiStructured(m // 3, m)
    expected = oracles.keep_in_groups_of_m(scores.numpy(), pattern.n, m)
    assert np.array_equal(prune_n_of_m(scores, pattern).numpy(), expected)


@given(score_rows(), st.sampled_from(["0", "0.29", "0.5", "0.7", "0.999"]))
def test_magnitude_counts_over_the_whole_linear(weight, sparsity):
    keep = magnitude_keep(torch.from_numpy(weight), parse_pattern(sparsity))
    assert np.array_equal(keep.numpy(), oracles.magnitude(weight, sparsity))


@given(scores_by_group())
def test_magnitude_counts_inside_groups_of_m(case):
    pattern, weight = case
    keep = magnitude_keep(torch.from_numpy(weight), pattern)
    assert np.array_equal(keep.numpy(), oracles.magnitude(weight, str(pattern)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_by_name(bad):
    require_finite(torch.zeros(4), "layers.0", "its scores")
    with pytest.raises(NonFiniteError, match=r"layers\.0: its scores"):
        require_finite(torch.tensor([0.0, bad]), "layers.0", "its scores")
