"""RIA ranks weights by their share of their row and column, times a power of what they read."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.base import Placement
from methods.contract import ModelState, check_contract
from methods.engine.statistics import InputNorms
from methods.errors import InputError, NonFiniteError
from methods.masks.pattern import parse_pattern
from methods.registry import build
from methods.scores.ria import RIA, ria_keep, ria_scores
from tests.methods import oracles, oracles_ria
from tests.methods.tiny_models import make_calibration, make_model

QUARTERS = st.integers(-6, 6).map(lambda n: n / 4)
PATTERNS = ["0", "0.29", "0.5", "0.7", "0.9"]
SPLITS = ["2:4", "1:4", "4:8", "3:8"]
GROUPS = ["layer", "output"]


@st.composite
def layers(draw, m=1):
    """A weight of quarters and squared norms whose fourth roots are whole, so that fp32 rounds both alike.

    Whole rows, whole columns and inputs may be zero.
    """
    columns = m * draw(st.integers(1, 4))
    weight = draw(hnp.arrays(np.float32, (draw(st.integers(1, 5)), columns), elements=QUARTERS))
    weight *= draw(hnp.arrays(np.float32, (weight.shape[0], 1), elements=st.sampled_from([0.0, 1.0])))
    weight *= draw(hnp.arrays(np.float32, (1, columns), elements=st.sampled_from([0.0, 1.0])))
    roots = draw(hnp.arrays(np.float32, columns, elements=st.integers(0, 3).map(float)))
    return weight, roots**4


def scores_of(weight: np.ndarray, squared_norms: np.ndarray, power: float) -> torch.Tensor:
    return ria_scores(torch.from_numpy(weight), torch.from_numpy(squared_norms), power)


@settings(max_examples=200)
@given(layers(), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_score_is_the_share_of_row_and_column_times_the_activation(layer, power):
    scores = scores_of(*layer, power)
    assert np.array_equal(scores.numpy(), oracles_ria.ria_scores(*layer, power))
    assert not scores.numpy()[layer[0] == 0].any()


@settings(max_examples=200)
@given(layers(), st.sampled_from(PATTERNS), st.sampled_from(GROUPS))
def test_each_group_loses_its_lowest_and_of_equals_the_first(layer, pattern, group):
    keep = ria_keep(scores_of(*layer, 0.5), parse_pattern(pattern), group)
    assert np.array_equal(
        keep.numpy(), oracles_ria.ria_keep(oracles_ria.ria_scores(*layer, 0.5), pattern, group)
    )


@settings(max_examples=200)
@given(layers(m=8), st.sampled_from(SPLITS), st.sampled_from(GROUPS))
def test_each_group_of_m_loses_its_lowest_and_of_equals_the_first(layer, pattern, group):
    keep = ria_keep(scores_of(*layer, 0.5), parse_pattern(pattern), group)
    assert np.array_equal(
        keep.numpy(), oracles_ria.ria_keep(oracles_ria.ria_scores(*layer, 0.5), pattern, group)
    )


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0, 2), st.integers(1, 4))
def test_scores_of_any_layer_are_those_of_the_oracle(seed, power, n_tokens):
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(5, 7))
    sample = generator.normal(size=(n_tokens, 7)) * generator.uniform(0.01, 30, 7)
    norms = InputNorms(7, torch.device("cpu"))
    norms.add(torch.from_numpy(sample))
    scores = ria_scores(torch.from_numpy(weight).float(), norms.value, power)
    expected = oracles_ria.ria_scores(weight, (sample**2).sum(0), power)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_the_same_weight_counts_for_more_where_its_neighbours_are_small():
    scores = ria_scores(torch.tensor([[1.0, 9.0], [1.0, 0.5]]), torch.ones(2), 0.5)
    assert scores[1, 0] > scores[0, 0]
    assert scores.tolist() == [
        pytest.approx([1 / 2 + 1 / 10, 9 / 9.5 + 9 / 10]),
        pytest.approx([1 / 2 + 1 / 1.5, 0.5 / 9.5 + 0.5 / 1.5]),
    ]


def test_no_norm_counts_where_the_power_is_0_and_a_dead_input_counts_as_others():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(ria_scores(weight, torch.tensor([0.0, 9.0]), 0), ria_scores(weight, torch.ones(2), 0))


def test_rows_compete_by_themselves_or_with_all_others():
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert ria_keep(scores, parse_pattern("0.5"), "output").tolist() == [[False, True], [False, True]]
    assert ria_keep(scores, parse_pattern("0.5"), "layer").tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("pattern", ["0.5", "0.7", "2:4"])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_whole_model_is_pruned_as_the_oracle_prunes_it(family, pattern, group):
    model, plain = make_model(family).eval(), make_model(family).eval()
    calibration = make_calibration()
    method, before = RIA(group=group), ModelState.of(model)
    result = method.prune(model, parse_pattern(pattern), calibration, placement=Placement(2))
    check_contract(method, parse_pattern(pattern), before, model, result)

    def decide(name, weight, samples):
        return oracles_ria.ria(weight, samples, pattern, group=group), weight

    keep = oracles.prune_layers(plain, calibration.input_ids, decide)
    assert set(result.keep) == {f"{name}.weight" for name in keep}
    differing = sum(int((result.keep[f"{n}.weight"].unpack().numpy() != keep[n]).sum()) for n in keep)
    assert differing <= 1e-3 * sum(mask.size for mask in keep.values())


@pytest.mark.parametrize(
    ("power", "said"), [(0.5, "their weights rank lowest"), (0.0, "their weights rank by themselves alone")]
)
def test_inputs_that_were_never_active_are_reported(power, said):
    model = make_model("opt")
    first = model.model.decoder.layers[0]
    first.fc1.weight.data[:50] = 0
    first.fc1.bias.data[:50] = -1
    result = RIA(activation_power=power).prune(model, parse_pattern("0.5"), make_calibration())
    reports = {report.module: report for report in result.layers}
    assert reports["model.decoder.layers.0.fc2"].warnings == (f"50 inputs were never active; {said}",)
    keep = result.keep["model.decoder.layers.0.fc2.weight"].unpack()
    assert bool(keep[:, :50].any()) == (power == 0)


def test_a_matrix_of_zeros_is_pruned_to_the_count_from_the_front():
    scores = ria_scores(torch.zeros(2, 4), torch.ones(4), 0.5)
    assert ria_keep(scores, parse_pattern("0.5"), "layer").tolist() == [[False] * 4, [True] * 4]


def test_scores_that_overflow_are_an_error_that_names_the_module():
    model = make_model("llama")
    model.model.layers[1].self_attn.o_proj.weight.data[:] = 3e38
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1"):
        RIA().prune(model, parse_pattern("0.5"), make_calibration())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"activation_power": -0.5}, "activation_power must be at least 0, not -0.5"),
        ({"activation_power": "high"}, "activation_power cannot be 'high'"),
        ({"group": "input"}, "group cannot be 'input'; it takes 'layer', 'output'"),
    ],
)
def test_settings_out_of_range_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        build("ria", values)


def test_a_power_that_is_not_a_number_is_refused():
    with pytest.raises(InputError, match="activation_power"):
        RIA(activation_power=float("nan"))
