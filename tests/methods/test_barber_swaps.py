"""The rebuild swaps the pairs the paper swaps, and counts them exactly."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.refinements.barber_swaps import floor_share, rebuild, rebuild_n_of_m
from tests.methods import oracles

RATIOS = ["0.0", "0.01", "0.1", "0.3", "0.5", "0.7", "0.9", "1.0"]
TIED = st.sampled_from([0.0, 0.5, 1.0, 2.0])
ANY = st.floats(0, 2.0**99, width=32)


@st.composite
def masked_scores(draw, columns=st.integers(1, 12)):
    """A keep-mask and scores, in half of the cases full of ties; some rows score nothing but zeros."""
    shape = (draw(st.integers(1, 6)), draw(columns))
    scores = draw(hnp.arrays(np.float32, shape, elements=draw(st.sampled_from([TIED, ANY]))))
    scores[draw(hnp.arrays(np.bool_, shape[0]))] *= draw(st.sampled_from([0, 1]))
    return draw(hnp.arrays(np.bool_, shape)), scores


@st.composite
def masked_groups(draw):
    """N:M, a keep-mask that obeys it, and scores."""
    m = draw(st.integers(1, 8))
    n = draw(st.integers(1, m))
    _, scores = draw(masked_scores(st.integers(1, 4).map(lambda groups: groups * m)))
    one_group = st.permutations([True] * n + [False] * (m - n))
    groups = draw(st.lists(one_group, min_size=scores.size // m, max_size=scores.size // m))
    return m, np.array(groups).reshape(scores.shape), scores


@settings(max_examples=200)
@given(masked_scores(), st.sampled_from(RATIOS))
@pytest.mark.parametrize("granularity", ["output", "input", "layer"])
def test_the_pairs_of_the_paper_are_swapped(granularity, case, ratio):
    keep, scores = case
    before = keep.copy(), scores.copy()
    expected = oracles.barber_rebuild({"w": keep}, {"w": scores}, granularity, ratio)["w"]
    rebuilt = rebuild(torch.from_numpy(keep), torch.from_numpy(scores), granularity, float(ratio))
    assert np.array_equal(rebuilt.numpy(), expected)
    assert np.array_equal(keep, before[0])
    assert np.array_equal(scores, before[1])


@settings(max_examples=100)
@given(masked_scores(), masked_scores(), st.sampled_from(RATIOS))
def test_the_linears_of_a_block_compete_as_one_group(first, second, ratio):
    keep, scores = {"a": first[0], "b": second[0]}, {"a": first[1], "b": second[1]}
    expected = oracles.barber_rebuild(keep, scores, "block", ratio)
    flat = rebuild(
        torch.cat([torch.from_numpy(mask).flatten() for mask in keep.values()]),
        torch.cat([torch.from_numpy(score).flatten() for score in scores.values()]),
        "block",
        float(ratio),
    )
    assert np.array_equal(flat.numpy(), np.concatenate([expected["a"].ravel(), expected["b"].ravel()]))


@given(masked_scores(), st.sampled_from(RATIOS))
def test_every_group_keeps_as_many_as_before(case, ratio):
    keep, scores = (torch.from_numpy(values) for values in case)
    for granularity, axis in (("output", (1,)), ("input", (0,)), ("layer", (0, 1))):
        rebuilt = rebuild(keep, scores, granularity, float(ratio))
        assert torch.equal(rebuilt.sum(axis), keep.sum(axis))


@given(masked_scores())
def test_ratio_0_swaps_nothing_and_ratio_1_leaves_no_profitable_swap(case):
    keep, scores = (torch.from_numpy(values) for values in case)
    assert torch.equal(rebuild(keep, scores, "output", 0.0), keep)
    rebuilt = rebuild(keep, scores, "output", 1.0)
    for kept, row in zip(rebuilt, scores, strict=True):
        if kept.any() and not kept.all():
            assert row[~kept].max() <= row[kept].min()


@pytest.mark.parametrize("granularity", ["output", "input", "layer"])
def test_equal_scores_and_zeros_are_never_swapped(granularity):
    keep = torch.tensor([[True, False, True, False], [False, True, False, True]])
    for value in (0.0, 3.0):
        assert torch.equal(rebuild(keep, torch.full((2, 4), value), granularity, 1.0), keep)


def test_of_equal_scores_the_lower_flat_index_comes_back_first_and_goes_first():
    keep = torch.tensor([[False, True, False, True, False, True]])
    scores = torch.tensor([[9.0, 1.0, 9.0, 1.0, 9.0, 1.0]])
    # Three profitable pairs, of which floor(3 * 0.4) = 1 is swapped.
    assert rebuild(keep, scores, "output", 0.4).tolist() == [[True, False, False, True, False, True]]


@pytest.mark.parametrize(
    ("ratio", "profitable", "swapped"),
    [
        (0.1, 30, 3),
        (0.7, 10, 7),
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.01, 99, 0),
        (0.01, 100, 1),
        (0.3, 10, 3),
        (1e-5, 100_000, 1),
        (0.0, 50, 0),
        (1.0, 50, 50),
    ],
)
def test_the_share_of_profitable_swaps_is_taken_exactly(ratio, profitable, swapped):
    keep = torch.arange(2 * profitable) % 2 == 0
    rebuilt = rebuild(keep, (~keep).float(), "layer", ratio)
    assert int((rebuilt & ~keep).sum()) == swapped


@settings(max_examples=500)
@given(st.floats(0, 1), st.integers(0, 10**9))
def test_any_ratio_of_any_count_is_exact(ratio, count):
    expected = floor(Fraction(repr(ratio)) * count)
    assert floor_share(torch.tensor([[count]]), ratio).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("ratio", "swapped"), [(1 / 3, 1666), (0.1 + 0.2, 1500), (1 - 1e-16, 4999), (1e-20, 0), (2**-60, 0)]
)
def test_a_ratio_with_many_digits_swaps_its_share(ratio, swapped):
    keep = torch.arange(10_000) % 2 == 0
    rebuilt = rebuild(keep, (~keep).float(), "layer", ratio)
    assert int((rebuilt & ~keep).sum()) == swapped


@settings(max_examples=300)
@given(masked_groups(), st.sampled_from(RATIOS), st.booleans())
def test_groups_of_m_are_rebuilt_pair_by_pair(case, ratio, guard):
    m, keep, scores = case
    expected = oracles.barber_rebuild_n_of_m(keep, scores, m, ratio, guard=guard)
    rebuilt = rebuild_n_of_m(
        torch.from_numpy(keep), torch.from_numpy(scores), m, float(ratio), guard=guard
    ).numpy()
    assert np.array_equal(rebuilt, expected)
    groups = (scores.shape[0], -1, m)
    assert np.array_equal(rebuilt.reshape(groups).sum(-1), keep.reshape(groups).sum(-1))


@settings(max_examples=200)
@given(masked_groups(), st.sampled_from(RATIOS))
def test_guarded_no_newcomer_scores_lower_than_what_it_evicts(case, ratio):
    m, keep, scores = case
    rebuilt = rebuild_n_of_m(
        torch.from_numpy(keep), torch.from_numpy(scores), m, float(ratio), guard=True
    ).numpy()
    for before, after, group in zip(
        keep.reshape(-1, m), rebuilt.reshape(-1, m), scores.reshape(-1, m), strict=True
    ):
        came, went = np.sort(group[after & ~before])[::-1], np.sort(group[before & ~after])
        assert came.size == went.size
        assert (came > went).all()


def test_without_the_guard_a_row_leader_evicts_even_a_higher_score():
    # The row's one profitable pair is (index 0, index 5), but in its own group 0 meets 9.
    keep = torch.tensor([[False, True, True, False, False, True, True, False]])
    scores = torch.tensor([[5.0, 9.0, 9.0, 1.0, 0.0, 2.0, 8.0, 0.0]])
    assert torch.equal(rebuild_n_of_m(keep, scores, 4, 1.0, guard=True), keep)
    assert rebuild_n_of_m(keep, scores, 4, 1.0, guard=False).tolist() == [
        [True, False, True, False, False, True, True, False]
    ]


def test_at_most_as_many_come_back_as_a_group_keeps():
    # The row lets 9 and 8 come back, both into the first group, which keeps one.
    keep = torch.tensor([[True, False, False, False, True, False, False, False]])
    scores = torch.tensor([[1.0, 7.0, 9.0, 8.0, 6.0, 0.0, 0.0, 0.0]])
    for guard in (True, False):
        rebuilt = rebuild_n_of_m(keep, scores, 4, 1.0, guard=guard)
        assert rebuilt.tolist() == [[False, False, True, False, True, False, False, False]]
