"""DSnoT swaps weights until what a row lacks adds up to nothing, and keeps every row's count."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers import AutoModelForCausalLM, GPT2Config, Qwen3MoeConfig

from methods.base import Placement
from methods.contract import ModelState, check_contract
from methods.dsnot import DSnoT
from methods.engine.steps import Solution
from methods.errors import InputError, NonFiniteError
from methods.masks.pattern import parse_pattern
from methods.refinements.dsnot_swaps import InputMoments, refine, reliabilities
from methods.registry import build, settings_of
from tests.methods import oracles, oracles_dsnot
from tests.methods.problems import problem_of
from tests.methods.tiny_models import make_calibration, make_model

QUARTERS = st.integers(-8, 8).map(lambda n: n / 4)
VARIANCES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0])
COSTS = st.integers(0, 6).map(lambda n: n / 4)


@st.composite
def choices(draw):
    """Settings of a refinement; every number they lead to is exact in fp32."""
    return {
        "power": draw(st.sampled_from([0.0, 1.0, 2.0])),
        "max_cycles": draw(st.sampled_from([1, 2, 5, 50])),
        "threshold": draw(st.sampled_from([0.0, 0.1, 0.25, 1.0])),
        "same_sign": draw(st.booleans()),
    }


@st.composite
def rows_to_refine(draw, columns=st.integers(1, 14)):
    """Influence, variance and cost, full of ties and zeros."""
    shape = (draw(st.integers(1, 5)), draw(columns))
    influence = draw(hnp.arrays(np.float32, shape, elements=QUARTERS))
    # Inputs that sum up to nothing influence nothing.
    influence *= draw(hnp.arrays(np.float32, (1, shape[1]), elements=st.sampled_from([1.0, 1.0, 0.0])))
    variance = draw(hnp.arrays(np.float32, shape[1], elements=VARIANCES))
    return influence, variance, draw(hnp.arrays(np.float32, shape, elements=COSTS))


@st.composite
def masked_rows(draw):
    layer = draw(rows_to_refine())
    return draw(hnp.arrays(np.bool_, layer[0].shape)), *layer


@st.composite
def masked_groups(draw):
    """N:M as written, a keep-mask that obeys it, and the rest."""
    m = draw(st.sampled_from([2, 4, 8]))
    n = draw(st.integers(1, m))
    layer = draw(rows_to_refine(st.integers(1, 3).map(lambda groups: groups * m)))
    one_group = st.permutations([True] * n + [False] * (m - n))
    n_groups = layer[0].size // m
    groups = draw(st.lists(one_group, min_size=n_groups, max_size=n_groups))
    return f"{n}:{m}", np.array(groups).reshape(layer[0].shape), *layer


def refined(
    keep, influence, variance, cost, *, m=None, power=1.0, max_cycles=50, threshold=0.1, same_sign=False
):
    tensors = [torch.as_tensor(array) for array in (keep, influence, variance, cost)]
    keep, influence, variance, cost = tensors
    before = [tensor.clone() for tensor in tensors]
    trust = reliabilities(influence, variance, power)
    after = refine(
        keep, influence, trust, cost, m=m, max_cycles=max_cycles, threshold=threshold, same_sign=same_sign
    )
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True))
    return after.numpy()


def errors(keep: np.ndarray, influence: np.ndarray) -> np.ndarray:
    return np.where(keep, 0, influence).sum(1, dtype=np.float64)


@settings(max_examples=300)
@given(masked_rows(), choices())
def test_rows_swap_what_the_paper_swaps(layer, chosen):
    assert np.array_equal(refined(*layer, **chosen), oracles_dsnot.refine(*layer, **chosen))


@settings(max_examples=300)
@given(masked_groups(), choices())
def test_groups_of_m_swap_within_themselves(case, chosen):
    pattern, *layer = case
    m = int(pattern.split(":")[1])
    after = refined(*layer, m=m, **{**chosen, "same_sign": True})
    assert np.array_equal(after, oracles_dsnot.refine(*layer, pattern=pattern, **chosen))
    assert np.array_equal(after.reshape(-1, m).sum(1), layer[0].reshape(-1, m).sum(1))


@settings(max_examples=200)
@given(masked_rows(), choices())
def test_every_row_keeps_as_many_and_swaps_no_more_than_the_cycles(layer, chosen):
    keep, after = layer[0], refined(*layer, **chosen)
    assert np.array_equal(after.sum(1), keep.sum(1))
    assert ((after & ~keep).sum(1) <= chosen["max_cycles"]).all()
    within = np.abs(errors(keep, layer[1])) <= chosen["threshold"]
    assert np.array_equal(after[within], keep[within])


@settings(max_examples=200)
@given(masked_rows())
def test_where_the_sign_must_hold_no_swap_makes_an_error_larger(layer):
    keep, influence = layer[:2]
    before, after = errors(keep, influence), errors(refined(*layer, same_sign=True), influence)
    changed = before != after
    assert (np.sign(after) == np.sign(before))[changed].all()
    assert (np.abs(after) <= np.abs(before)).all()


def test_a_row_swaps_the_surest_newcomer_for_the_cheapest_of_the_other_sign():
    #                pruned: 3, 2, -1 (error 4); kept: 5, -1, -2
    influence = [[3.0, 2.0, -1.0, 5.0, -1.0, -2.0]]
    keep = np.array([[False, False, False, True, True, True]])
    variance, cost = np.array([4.0, 1.0, 1.0, 1.0, 1.0, 1.0]), [[0.0, 0.0, 0.0, 1.0, 3.0, 2.0]]
    layer = (keep, np.float32(influence), np.float32(variance), np.float32(cost))
    # 2 comes before 3, whose input varies four times as much; -2 goes before -1, and 5 has the wrong sign.
    once = refined(*layer, max_cycles=1)
    assert once.tolist() == [[False, True, False, True, True, False]]
    assert errors(once, layer[1]).tolist() == [0.0]
    assert refined(*layer, max_cycles=1, power=0.0).tolist() == [[True, False, False, True, True, False]]
    # The swap brings the error to 0, which is no longer its initial sign.
    assert np.array_equal(refined(*layer, same_sign=True), keep)


def test_a_row_may_overshoot_and_come_back():
    influence = np.float32([[4.0, -3.0, -3.0, 2.0]])
    keep = np.array([[False, False, True, True]])
    #  error 1: 4 comes, -3 goes; error -6: -3 comes, 2 goes; error -1: nobody is left to come.
    after = refined(keep, influence, np.ones(4, np.float32), np.ones((1, 4), np.float32), threshold=0.5)
    assert after.tolist() == [[True, True, False, False]]
    assert errors(after, influence).tolist() == [-1.0]


def test_a_group_without_a_weight_left_to_go_ends_its_row():
    influence = np.float32([[4.0, 3.0, 2.0, 1.0, 0.25, 0.25, 0.25, 0.25]])
    keep = np.array([[False, False, False, True, False, False, False, True]])
    cost = np.float32([[9.0] * 8])
    # 4 evicts 1, the only one its group keeps. Next comes 3, and there is nobody.
    after = refined(keep, influence, np.ones(8, np.float32), cost, m=4, same_sign=True)
    assert after.tolist() == [[True, False, False, False, False, False, False, True]]


def test_an_input_that_never_varies_is_surest_whatever_its_influence():
    influence = np.float32([[100.0, 0.25, 0.5, -1.0]])
    keep = np.array([[False, False, False, True]])
    variance, cost = np.float32([1e-6, 0.0, 0.0, 1.0]), np.ones((1, 4), np.float32)
    assert refined(keep, influence, variance, cost).tolist() == [[False, False, True, False]]
    assert refined(keep, influence, variance, cost, power=0.0).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 6.0])
def test_the_order_of_return_is_finite_at_the_ends_of_fp32(power):
    ends = torch.finfo(torch.float32)
    influence = torch.tensor([[ends.max, ends.smallest_normal * 2.0**-23, -ends.max, 0.0]])
    for variance in (0.0, ends.tiny, ends.max):
        values = reliabilities(influence, torch.full((4,), variance), power)
        assert torch.isfinite(values).all()
        assert torch.equal(values.sign(), influence.double().sign())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_moments_are_those_of_all_tokens_however_they_are_batched(dtype, offset):
    x = (torch.randn(999, 6, generator=torch.Generator().manual_seed(0)) + offset).to(dtype)
    moments = InputMoments(6, torch.device("cpu"))
    for part in x.split([1, 600, 0, 300, 98]):
        moments.add(part)
    exact = x.double()
    torch.testing.assert_close(moments.total.double(), exact.sum(0), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(moments.squares.double(), exact.square().sum(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(moments.variance.double(), exact.var(0, unbiased=False), rtol=1e-4, atol=0)
    assert moments.value.shape == (3, 6)
    assert moments.value.dtype == torch.float32


def test_a_variance_far_below_the_mean_is_not_lost():
    noise = torch.randn(4096, 3, generator=torch.Generator().manual_seed(1)) * 0.01
    x = noise + 1000
    moments = InputMoments(3, torch.device("cpu"))
    for part in x.split(512):
        moments.add(part)
    exact = x.double().var(0, unbiased=False)
    torch.testing.assert_close(moments.variance.double(), exact, rtol=0.02, atol=0)


def test_an_input_that_never_varies_has_no_variance_and_nothing_seen_is_all_zero():
    moments = InputMoments(2, torch.device("cpu"))
    assert not moments.value.any()
    moments.add(torch.tensor([[2.5, 1.0]]))
    assert moments.variance.tolist() == [0.0, 0.0]
    moments.add(torch.tensor([[2.5, 2.0]] * 3))
    assert moments.variance.tolist() == [0.0, 0.1875]


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(["0.5", "0.7", "2:4", "1:4"]), choices())
def test_any_layer_is_refined_as_the_oracle_refines_it(seed, n_tokens, pattern, chosen):
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(6, 16))
    samples = [
        generator.normal(0.3, 1, size=(n_tokens, 16)) * generator.uniform(0.2, 2, 16) for _ in range(2)
    ]
    for sample in samples:
        sample[:, 3] = 0
    keep = oracles.wanda(weight, samples, pattern)
    moments = InputMoments(16, torch.device("cpu"))
    moments.add(torch.from_numpy(np.concatenate(samples)))
    method = DSnoT(
        variance_power=chosen["power"],
        max_cycles=chosen["max_cycles"],
        update_threshold=chosen["threshold"],
        same_sign=chosen["same_sign"],
    )
    problem = problem_of(torch.from_numpy(weight).float(), {InputMoments: moments}, pattern)
    ours = method.swaps.refine(problem, Solution(torch.from_numpy(keep))).keep.numpy()
    expected = oracles_dsnot.dsnot(weight, keep, samples, pattern=pattern, **chosen)
    assert np.array_equal(ours, expected)
    assert np.array_equal(ours[:, 3], keep[:, 3])


VARIANTS = [
    {},
    {"blocks": "all"},
    {"blocks": "mlp", "same_sign": True},
    {"initial": "magnitude", "blocks": "all", "max_cycles": 3},
    {"initial": "sparsegpt", "blocks": "all", "variance_power": 0.0},
    {"initial": "ria", "blocks": "all", "update_threshold": 0.0},
    {"initial": "llm-barber", "initial_settings": {"rebuild_ratio": 0.3}},
]


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("pattern", ["0", "0.5", "0.7", "2:4", "1:4"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_contract(family, variant, pattern):
    model, method = make_model(family), build("dsnot", variant)
    before = ModelState.of(model)
    result = method.prune(model, parse_pattern(pattern), make_calibration(), placement=Placement(2))
    check_contract(method, parse_pattern(pattern), before, model, result)
    for report in result.layers:
        refines = method.blocks in ("all", report.block)
        assert (report.swaps is not None) == refines
        key = f"{report.module}.weight"
        came = result.keep[key].unpack() & ~result.initial.keep[key].unpack()
        assert int(came.sum()) == (report.swaps or 0)


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
@pytest.mark.parametrize("initial", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_whole_model_is_refined_as_the_oracle_refines_it(family, initial, pattern):
    model, plain = make_model(family).eval(), make_model(family).eval()
    calibration = make_calibration()
    method = DSnoT(initial=initial, blocks="all")
    result = method.prune(model, parse_pattern(pattern), calibration, placement=Placement(2))
    agreeing: list[bool] = []

    def decide(name, weight, samples):
        keep, ours = (r.keep[f"{name}.weight"].unpack().numpy() for r in (result.initial, result))
        expected = oracles_dsnot.dsnot(weight, keep, samples, pattern=pattern)
        agreeing.extend((ours == expected).all(axis=1))
        # Judged on what the model under test passed on, since one swap turned by rounding turns those after.
        return ours, weight

    oracles.prune_layers(plain, calibration.input_ids, decide)
    assert sum(agreeing) >= 0.995 * len(agreeing)
    assert sum(report.swaps for report in result.layers) > 100


def test_the_initial_mask_is_that_of_the_initial_method_run_by_itself():
    alone = build("wanda").prune(make_model("llama"), parse_pattern("0.5"), make_calibration())
    told = []
    result = DSnoT().prune(
        make_model("llama"), parse_pattern("0.5"), make_calibration(), on_layer=told.append
    )
    assert result.initial.mask_digest == alone.mask_digest != result.mask_digest
    assert tuple(told) == result.layers
    assert set(result.phases) == {"statistics", "solve", "propagate"}
    assert all(result.phases[name] > result.initial.phases[name] for name in result.phases)
    mlp = [report.module for report in result.layers if report.block == "mlp"]
    assert mlp
    assert all(result.keep[f"{m}.weight"] == result.initial.keep[f"{m}.weight"] for m in mlp)


def test_what_an_initial_method_reconstructed_is_thrown_away():
    model, dense = make_model("llama"), make_model("llama")
    result = DSnoT(initial="sparsegpt").prune(model, parse_pattern("0.5"), make_calibration())
    for key, mask in result.keep.items():
        assert torch.equal(model.get_parameter(key), dense.get_parameter(key) * mask.unpack())
    assert {report.damping for report in result.layers} == {0.01}


def test_refining_brings_the_expected_outputs_closer_to_the_dense_ones():
    calibration = make_calibration(n_samples=8)
    dense, pruned, refined_model = (make_model("llama").eval() for _ in range(3))
    build("wanda").prune(pruned, parse_pattern("0.7"), calibration)
    DSnoT(blocks="all").prune(refined_model, parse_pattern("0.7"), calibration)

    def mean_output(model) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        attention = model.model.layers[0].self_attn.v_proj
        hook = attention.register_forward_hook(lambda _m, _a, y: outputs.append(y))
        with torch.no_grad():
            model(input_ids=calibration.input_ids)
        hook.remove()
        return outputs[0].mean((0, 1))

    target = mean_output(dense)
    before, after = (float((mean_output(m) - target).norm()) for m in (pruned, refined_model))
    assert after < 0.5 * before


def test_dead_inputs_are_reported_and_their_weights_are_left_alone():
    model = make_model("opt")
    first = model.model.decoder.layers[0]
    first.fc1.weight.data[:50] = 0
    first.fc1.bias.data[:50] = -1
    method = DSnoT(initial="magnitude", blocks="mlp")
    result = method.prune(model, parse_pattern("0.5"), make_calibration())
    report = next(r for r in result.layers if r.module == "model.decoder.layers.0.fc2")
    assert report.warnings == ("50 inputs were never active; their weights were not swapped",)
    key = f"{report.module}.weight"
    before, after = (r.keep[key].unpack()[:, :50] for r in (result.initial, result))
    assert torch.equal(before, after)
    assert report.swaps > 0


def test_activations_that_are_not_finite_are_an_error_that_names_the_module():
    model = make_model("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp"):
        DSnoT(initial="magnitude").prune(model, parse_pattern("0.5"), make_calibration())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"initial": "dsnot"}, "method 'dsnot' cannot be its own initial method"),
        ({"initial": "wander"}, "unknown method 'wander'; did you mean 'wanda'"),
        ({"initial_settings": {"damping": 1}}, "method 'wanda' has no setting 'damping'"),
        ({"max_cycles": 0}, "max_cycles must be at least 1, not 0"),
        ({"update_threshold": -0.1}, "update_threshold must be at least 0, not -0.1"),
        ({"variance_power": -1}, r"variance_power -1 is outside \[0, 6\]"),
        ({"variance_power": 7}, r"variance_power 7 is outside \[0, 6\]"),
        ({"blocks": "self_attn"}, "blocks cannot be 'self_attn'; it takes 'attention', 'mlp', 'all'"),
        ({"same_sign": 1}, "same_sign cannot be 1; it takes true or false"),
    ],
)
def test_settings_out_of_range_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        build("dsnot", values)


@pytest.mark.parametrize("setting", ["update_threshold", "variance_power"])
def test_a_setting_that_is_not_a_number_is_refused(setting):
    with pytest.raises(InputError, match=setting):
        DSnoT(**{setting: float("nan")})


def test_a_pattern_that_the_initial_method_cannot_do_is_refused_before_anything_runs():
    method = DSnoT(initial="llm-barber", initial_settings={"granularity": "layer"})
    assert method.comparison_group((4, 8), parse_pattern("0.5")) == (1, 8)
    with pytest.raises(InputError, match="2:4 needs granularity 'output'"):
        method.comparison_group((4, 8), parse_pattern("2:4"))


def test_settings_are_told_in_full():
    told = settings_of(build("dsnot", {"initial": "sparsegpt", "initial_settings": {"block_size": 64}}))
    assert told["initial_settings"] == {"damping": 0.01, "block_size": 64}
    assert build("dsnot", told) == DSnoT(initial="sparsegpt", initial_settings={"block_size": 64})


@pytest.mark.parametrize("blocks", ["all", "attention"])
def test_transposed_and_stacked_weights_are_refined_as_they_are_stored(blocks):
    for config in (
        GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2),
        Qwen3MoeConfig(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            num_experts=6,
            num_experts_per_tok=2,
        ),
    ):
        torch.manual_seed(2)
        model, method = AutoModelForCausalLM.from_config(config).eval(), DSnoT(blocks=blocks)
        before = ModelState.of(model)
        result = method.prune(model, parse_pattern("0.5"), make_calibration(n_samples=2))
        check_contract(method, parse_pattern("0.5"), before, model, result)
        assert sum(report.swaps or 0 for report in result.layers) > 0
        for report in result.layers:
            assert len(set(report.warnings)) == len(report.warnings)
            assert sum("routed to it" in warning for warning in report.warnings) <= 1
