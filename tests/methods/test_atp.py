"""ATP gives later layers a higher sparsity in equal steps, and the model as a whole the one asked for."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.allocations.atp import ATP, rising_sparsities
from methods.errors import InputError
from methods.masks.pattern import parse_pattern
from methods.registry import allocations
from methods.structure.decoder import read_decoder
from tests.methods.tiny_models import make_model


def test_five_equal_layers_are_those_of_the_paper():
    """S = 0.7, L = 5, beta = 0.05: s_i = 0.7 - 0.05 * 4 / 2 + 0.05 i."""
    found = rising_sparsities([10] * 5, Fraction("0.7"), 0.1)
    assert found == [Fraction(text) for text in ("0.6", "0.65", "0.7", "0.75", "0.8")]


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    st.fractions(0, 1, max_denominator=100),
    st.floats(0, 0.3),
)
def test_steps_are_equal_and_the_whole_model_has_the_sparsity(sizes, sparsity, reach):
    found = rising_sparsities(sizes, sparsity, reach)
    steps = [float(b - a) for a, b in pairwise(found)]
    assert steps == pytest.approx([2 * reach / max(len(sizes) - 1, 1)] * len(steps), abs=2e-6)
    whole = sum(s * size for s, size in zip(found, sizes, strict=True)) / sum(sizes)
    assert float(whole) == pytest.approx(float(sparsity), abs=1e-6)


def test_a_model_is_pruned_less_in_its_first_layers():
    model = make_model("llama")
    allocated = ATP(0.2).allocate(model, parse_pattern("0.5"), None)
    layers = read_decoder(model).layers
    given_to = [{float(allocated.of_module[name].sparsity) for name in layer.targets} for layer in layers]
    assert given_to == [{0.3}, {0.7}]


@pytest.mark.parametrize(
    ("settings", "pattern", "reason"),
    [
        ({"max_deviation": -0.1}, "0.5", "max_deviation must be at least 0, not -0.1"),
        ({"max_deviation": 0.2}, "0.9", "would get sparsity 1.1, outside"),
        ({}, "2:4", "spreads an unstructured sparsity such as 0.5, not 2:4"),
    ],
)
def test_what_it_cannot_spread_is_refused(settings, pattern, reason):
    with pytest.raises(InputError, match="allocation 'atp'") as refused:
        allocations.build("atp", settings).allocate(make_model("llama"), parse_pattern(pattern), None)
    assert reason in str(refused.value)
