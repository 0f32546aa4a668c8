"""OWL gives layers with more outliers a lower sparsity, and the model as a whole the one asked for."""

import copy
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers import LlamaConfig, LlamaForCausalLM

from methods.allocation import Allocation
from methods.allocations.owl import OWL, layer_sparsities, outlier_share
from methods.base import Placement
from methods.contract import ModelState, check_contract
from methods.errors import InputError, NonFiniteError
from methods.masks.pattern import Allocated, Unstructured, parse_pattern
from methods.registry import allocations, build
from tests.methods import oracles, oracles_owl
from tests.methods.tiny_models import make_calibration, make_model

SIZES = st.integers(1, 40)
SHARES = st.fractions(0, 1, max_denominator=500)


def uneven_model(n_layers: int = 4) -> LlamaForCausalLM:
    """A model whose layers have more outliers the higher they are."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=n_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    for index, layer in enumerate(model.model.layers):
        layer.mlp.up_proj.weight.data[: 3 * index] *= 20
    return model


def plain_allocation(
    model, calibration, sparsity: float, threshold=5.0, max_deviation=0.08
) -> dict[str, float]:
    """Target -> sparsity by the oracle."""
    shares, sizes, names = [], [], []
    for blocks in oracles.plain_blocks(model):
        linears = {name: linear for block in blocks for name, linear in block.linears.items()}
        read = oracles.inputs_of(model, linears, calibration.input_ids)
        matrices = [(linear.weight.detach().numpy(), read[name]) for name, linear in linears.items()]
        shares.append(oracles_owl.outlier_share(matrices, threshold))
        sizes.append(sum(weight.size for weight, _ in matrices))
        names.append(list(linears))
    spread = oracles_owl.layer_sparsities(shares, sizes, sparsity, max_deviation)
    return {name: s for layer, s in zip(names, spread, strict=True) for name in layer}


@st.composite
def scores_of_layers(draw):
    """The weights and inputs of one layer's matrices; every score, and their mean, is exact in fp32."""
    matrices = []
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4, 8])))
        weight = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, -1.0, 8.0])))
        sizes = draw(hnp.arrays(np.float32, shape[1], elements=st.sampled_from([0.0, 1.0, 4.0])))
        matrices.append((weight, [np.stack([3 * sizes, 4 * sizes])]))
    n_weights = sum(weight.size for weight, _ in matrices)
    assume(n_weights & (n_weights - 1) == 0)
    return matrices


@settings(max_examples=200)
@given(scores_of_layers(), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_an_outlier_is_above_so_many_times_the_mean_of_the_whole_layer(matrices, threshold):
    scores = [
        torch.from_numpy(np.abs(weight) * np.linalg.norm(sample, axis=0)) for weight, (sample,) in matrices
    ]
    share = outlier_share(scores, threshold)
    assert 100 * float(share) == pytest.approx(oracles_owl.outlier_share(matrices, threshold), rel=1e-12)


def test_scores_of_exactly_the_limit_are_no_outliers():
    assert outlier_share([torch.tensor([[0.0, 4.0], [2.0, 2.0]])], 2.0) == 0
    assert outlier_share([torch.tensor([[0.0, 4.0]]), torch.tensor([[2.0], [2.0]])], 1.5) == Fraction(1, 4)
    assert outlier_share([torch.zeros(2, 3)], 5.0) == 0


@settings(max_examples=300)
@given(
    st.lists(st.tuples(SHARES, SIZES), min_size=1, max_size=6),
    st.sampled_from(["0.5", "0.7", "0.29"]),
    st.sampled_from([0.0, 0.04, 0.08, 0.15]),
)
def test_sparsities_are_those_of_the_authors_formula(layers, sparsity, max_deviation):
    shares, sizes = [share for share, _ in layers], [size for _, size in layers]
    spread = layer_sparsities(shares, sizes, Fraction(sparsity), max_deviation)
    expected = oracles_owl.layer_sparsities(
        [100 * float(share) for share in shares], sizes, float(sparsity), max_deviation
    )
    np.testing.assert_allclose([float(s) for s in spread], expected, atol=1e-6)
    assert all(10**6 % s.denominator == 0 for s in spread)
    of_model = sum(s * size for s, size in zip(spread, sizes, strict=True)) / sum(sizes)
    assert abs(of_model - Fraction(sparsity)) <= Fraction(1, 10**6)
    if len(set(shares)) > 1:
        assert float(max(spread) - min(spread)) == pytest.approx(2 * max_deviation, abs=2e-6)


def test_more_outliers_mean_a_lower_sparsity_and_a_large_layer_counts_for_more():
    thirds = [Fraction(n, 100) for n in (1, 2, 3)]
    assert layer_sparsities(thirds, [1, 1, 1], Fraction("0.7"), 0.08) == [
        Fraction("0.78"),
        Fraction("0.7"),
        Fraction("0.62"),
    ]
    assert layer_sparsities([Fraction(0), Fraction(1)], [3, 1], Fraction("0.5"), 0.1) == [
        Fraction("0.55"),
        Fraction("0.35"),
    ]


def test_layers_with_equal_shares_get_the_sparsity_asked_for_exactly():
    third = Fraction(1, 3)
    assert layer_sparsities([Fraction(1, 7)] * 3, [5, 1, 2], third, 0.08) == [third] * 3
    assert layer_sparsities([Fraction(1, 7)], [5], third, 0.08) == [third]


def test_it_is_found_by_name_and_is_an_allocation():
    assert isinstance(allocations.build("owl"), Allocation)
    assert allocations.build("owl", {"max_deviation": 0}) == OWL(max_deviation=0.0)


@pytest.mark.parametrize("threshold", [2.0, 5.0])
@pytest.mark.parametrize("make", [uneven_model, lambda: make_model("llama"), lambda: make_model("opt")])
def test_a_whole_model_is_allocated_as_the_oracle_does_it(make, threshold):
    model, calibration = make().eval(), make_calibration()
    before = ModelState.of(model)
    allocated = OWL(outlier_threshold=threshold).allocate(
        model, parse_pattern("0.6"), calibration, placement=Placement(2)
    )
    expected = plain_allocation(copy.deepcopy(model), calibration, 0.6, threshold)
    assert allocated.base == Unstructured(Fraction("0.6"))
    assert list(allocated.of_module) == list(expected)
    for name, sparsity in expected.items():
        assert float(allocated.for_module(name).sparsity) == pytest.approx(sparsity, abs=1e-6)
    after = ModelState.of(model)
    assert after.parameters == before.parameters
    assert after.modules == before.modules
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "llm-barber", "ria", "dsnot"])
def test_every_method_prunes_by_it(method):
    model, calibration, pruner = uneven_model(), make_calibration(), build(method)
    allocated = OWL().allocate(model, parse_pattern("0.6"), calibration)
    by_layer = [float(allocated.for_module(f"model.layers.{i}.mlp.up_proj").sparsity) for i in range(4)]
    assert by_layer[0] - by_layer[3] == pytest.approx(0.16, abs=1e-5)
    before = ModelState.of(model)
    result = pruner.prune(model, allocated, calibration)
    check_contract(pruner, allocated, before, model, result)
    # Every row, or block of columns, rounds down.
    assert 0.58 < result.sparsity <= 0.6
    for report in result.layers:
        assert report.sparsity == pytest.approx(by_layer[report.layer], abs=0.04)


def test_the_model_comes_back_in_training_mode_and_batches_change_nothing():
    model, calibration = uneven_model().train(), make_calibration()
    spreads = [
        OWL().allocate(model, parse_pattern("0.5"), calibration, placement=Placement(n)) for n in (1, 2, 5)
    ]
    assert spreads[0] == spreads[1] == spreads[2]
    assert all(module.training for module in model.modules())


def test_a_deviation_of_0_is_the_same_sparsity_everywhere():
    allocated = OWL(max_deviation=0.0).allocate(uneven_model(), parse_pattern("0.6"), make_calibration())
    assert {pattern.sparsity for pattern in allocated.of_module.values()} == {Fraction("0.6")}


@pytest.mark.parametrize(
    ("sparsity", "deviation", "layer"), [("0.05", 0.1, 3), ("0.97", 0.1, 0), ("0", 0.08, 2)]
)
def test_a_sparsity_out_of_range_names_the_layer_and_what_to_change(sparsity, deviation, layer):
    with pytest.raises(InputError) as raised:
        OWL(max_deviation=deviation).allocate(uneven_model(), parse_pattern(sparsity), make_calibration())
    assert re.fullmatch(
        rf"allocation 'owl': model\.layers\.{layer} would get sparsity -?\d\.\d+, outside \[0, 1\); "
        rf"lower max_deviation \({deviation}\) or take another sparsity than {sparsity}",
        str(raised.value),
    )


@pytest.mark.parametrize(
    "pattern", [parse_pattern("2:4"), Allocated(Unstructured(Fraction("0.5")), {})], ids=["2:4", "allocated"]
)
def test_only_an_unstructured_sparsity_can_be_spread(pattern):
    OWL().check_pattern(parse_pattern("0.5"))
    with pytest.raises(
        InputError, match=rf"'owl' spreads an unstructured sparsity.*{re.escape(str(pattern))}"
    ):
        OWL().allocate(make_model("llama"), pattern, make_calibration())


def test_calibration_is_asked_for():
    with pytest.raises(InputError, match="'owl' needs calibration data"):
        OWL().allocate(make_model("llama"), parse_pattern("0.5"), None)


@pytest.mark.parametrize("where", ["weight", "activation"])
def test_what_is_not_finite_is_an_error_that_names_the_module(where):
    model = make_model("llama")
    layer = model.model.layers[1]
    if where == "weight":
        layer.mlp.up_proj.weight.data[3, 5] = float("nan")
    else:
        layer.post_attention_layernorm.weight.data[3] = float("inf")
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp\.(up|gate)_proj: (its w|the a)"):
        OWL().allocate(model, parse_pattern("0.5"), make_calibration())
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"outlier_threshold": 0}, "outlier_threshold must be above 0, not 0"),
        ({"max_deviation": -0.01}, "max_deviation must be at least 0, not -0.01"),
        ({"max_deviation": "x"}, "allocation 'owl': setting max_deviation cannot be 'x'"),
        ({"lambda": 0.1}, "allocation 'owl' has no setting 'lambda'"),
    ],
)
def test_settings_out_of_range_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        allocations.build("owl", values)


@pytest.mark.parametrize("setting", ["outlier_threshold", "max_deviation"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_setting_that_is_no_number_is_refused(setting, value):
    with pytest.raises(InputError, match=setting):
        OWL(**{setting: value})
