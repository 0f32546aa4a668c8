"""The floor's arithmetic against numbers written down by hand.

The tiny model has two layers, 16 features, 32 inside the MLP, two query heads of 8 and one key-value head. A
layer holds q 16x16, k and v 8x16, o 16x16, gate and up 32x16, down 16x32: 2,304 weights. 4 sequences of 32
are 128 tokens.
"""

import pytest

from benchmarks.floor import floors, forward_seconds, mean_floors
from benchmarks.machine import MachineRates, measure
from benchmarks.sizes import workload
from benchmarks.work import (
    STEPS,
    Matrix,
    activation_gradient_flops,
    attention_flops,
    column_flops,
    factor_flops,
    forward_flops,
    gram_flops,
    gram_triangle_flops,
    linear_flops,
    product_flops,
    solve_flops,
    traffic_bytes,
    weight_gradient_flops,
    work_of,
)
from methods.errors import InputError
from methods.recipe import parse_recipe
from methods.registry import steps
from tests.methods.tiny_models import make_model
from tests.tiny import tiny_model

LINEAR = 2 * 128 * 2 * 2304
ATTENTION = 4 * 128 * 16.5 * 16 * 2
RATES = MachineRates(
    model_flops=4e6,
    fp32_flops=1e6,
    accumulated_flops=2e6,
    bytes_per_second=1e6,
    layer_tokens_per_second=64,
    batch_size=4,
)
FORWARD = 128 * 2 / 64
GRAM = 2 * (2 * 128) * (3 * 16**2 + 32**2)
TRIANGLE = 2 * 128 * (3 * 16 * 17 + 32 * 33)
SOLVE = 2 * 2 / 3 * 45_056 + 90_112
BACKWARD = 933_888
NOTHING = dict.fromkeys(
    ("forwards", "activation_gradients", "weight_gradients", "gram", "solve", "traffic"), 0
)


@pytest.fixture(scope="module")
def load():
    return workload(tiny_model(), n_samples=4, seqlen=32)


def test_it_reads_the_shapes_and_who_shares_an_input(load):
    layer = load.layers[0]
    assert [(m.outputs, m.inputs, m.leads, m.from_block_input) for m in layer.matrices] == [
        (16, 16, True, True),
        (8, 16, False, True),
        (8, 16, False, True),
        (16, 16, True, False),
        (32, 16, True, True),
        (32, 16, False, True),
        (16, 32, True, False),
    ]
    assert layer.attention_width == 16
    assert load.layers == (layer, layer)
    assert (load.n_tokens, load.n_weights, load.weight_bytes) == (128, 4608, 4)


def test_side_by_side_blocks_share_an_input():
    """GPT-NeoX's one has a norm for each; Cohere's have one norm for both."""
    shared = workload(make_model("cohere"), 1, 8).layers[0]
    assert [m.leads for m in shared.matrices] == [True, False, False, True, False, False, True]
    assert [m.from_block_input for m in shared.matrices] == [True, True, True, False, True, True, False]


def test_products(load):
    assert linear_flops(load) == LINEAR == 1_179_648
    assert attention_flops(load) == ATTENTION == 270_336
    assert forward_flops(load) == 1_449_984
    assert weight_gradient_flops(load) == LINEAR
    # Only o (256) and down (512) pass a gradient on to another target; attention has four products.
    assert activation_gradient_flops(load) == 2 * 128 * 2 * 768 + 2 * ATTENTION == 933_888


def test_sparsegpt_forms_one_gram_matrix_an_input(load):
    assert gram_flops(load) == GRAM == 917_504
    assert gram_triangle_flops(load) == TRIANGLE == 2 * 128 * (3 * 16 * 17 + 32 * 33)
    assert gram_flops(load) / 2 < gram_triangle_flops(load) < gram_flops(load)
    factors, columns = 2 * 2 / 3 * (3 * 16**3 + 32**3), 2 * 45_056
    assert solve_flops(load) == pytest.approx(factors + columns) == pytest.approx(SOLVE)
    # Cholesky 9, the inverse of a triangle 9.
    assert factor_flops(3) == pytest.approx(18)
    assert column_flops(Matrix(5, 3, leads=True, from_block_input=True)) == 45


@pytest.mark.parametrize(
    ("method", "settings", "usual", "strict"),
    [
        ("magnitude", {}, 0, 0),
        ("wanda", {}, 2, 2),
        ("ria", {}, 2, 2),
        ("sparsegpt", {}, 2, 2),
        ("dsnot", {}, 4, 4),
        ("dsnot", {"initial": "magnitude"}, 2, 2),
        ("llm-barber", {}, 7, 5),
        ("llm-barber", {"initial": "magnitude"}, 5, 3),
        ("llm-barber", {"initial": "sparsegpt"}, 7, 5),
        ("llm-barber", {"initial": "dsnot"}, 9, 7),
        ("admm", {}, 2, 2),
        ("alps", {}, 2, 2),
        ("recipe", {"recipe": "magnitude"}, 0, 0),
        ("recipe", {"recipe": "wanda | swaps | refit"}, 2, 2),
        ("recipe", {"recipe": "wanda | dsnot"}, 2, 2),
        ("recipe", {"recipe": "wanda | llm-barber"}, 6, 4),
        ("recipe", {"recipe": "magnitude | llm-barber"}, 5, 3),
    ],
)
def test_forwards(load, method, settings, usual, strict):
    work = work_of(method, settings, load)
    assert (work.usual.forwards, work.strict.forwards) == (usual, strict)


def test_wanda_in_seconds(load):
    work = work_of("wanda", {}, load)
    # A score is 4 read and 4 written, a choice 4 + 1, a write 4 + 1 + 4, packing 1 + 1/8.
    assert traffic_bytes(work, load) == 4608 * 23.125 == 106_560
    found = floors(work, load, RATES)
    assert forward_seconds(load, RATES) == FORWARD == 4
    assert found.usual.parts == pytest.approx({**NOTHING, "forwards": 8, "traffic": 0.10656})
    assert found.usual.seconds == pytest.approx(8.10656)
    assert found.strict == found.usual
    assert found.roofline == pytest.approx(2 * 1_449_984 / 4e6)


def test_sparsegpt_in_seconds(load):
    found = floors(work_of("sparsegpt", {}, load), load, RATES)
    parts = {**NOTHING, "forwards": 8, "solve": SOLVE / 1e6, "traffic": 0.10656}
    assert found.usual.parts == pytest.approx({**parts, "gram": GRAM / 2e6})
    assert found.strict.parts == pytest.approx({**parts, "gram": TRIANGLE / 2e6})
    assert found.usual.seconds == pytest.approx(8 + GRAM / 2e6 + SOLVE / 1e6 + 0.10656)
    assert found.roofline == pytest.approx(2 * 1_449_984 / 4e6 + TRIANGLE / 2e6 + SOLVE / 1e6)


def test_steps_are_counted_beside_one_gram_matrix_per_input(load):
    products = 2 * 2 * 45_056
    assert product_flops(load) == products
    cubes = 2 * (3 * 16**3 + 32**3)
    expected = {
        "wanda | refit(steps=5)": 7 * products,
        "wanda | swaps | refit": (1 + 12) * products,
        "sparsegpt | refit": SOLVE + 12 * products,
        "magnitude | admm-update(iterations=3)": cubes + 4 * products,
        "ria | sparsegpt-update": SOLVE,
        "admm(iterations=4, mask_iterations=2)": cubes + 5 * products,
        "alps(refit_steps=1)": (10 / 3 + 2) * cubes + 6 * products,
    }
    for recipe, solve in expected.items():
        parsed = parse_recipe(recipe)
        work = work_of(parsed.method, parsed.settings, load)
        assert work.usual.products.solve == work.strict.products.solve == pytest.approx(solve), recipe
        assert (work.usual.products.gram, work.strict.products.gram) == (GRAM, TRIANGLE)


def test_every_built_in_step_has_a_floor():
    assert {name for name in steps.names() if steps.origin(name) == "built-in"} == set(STEPS)


def test_llm_barber_in_seconds(load):
    found = floors(work_of("llm-barber", {}, load), load, RATES)
    # Both passes write a mask; the dense weights are put aside, 4 read and 4 written.
    traffic = 4608 * (23.125 + 8 + 23.125) / 1e6
    # The backward is two of the seven forwards, and nothing beside them.
    assert found.usual.parts == pytest.approx({**NOTHING, "forwards": 7 * 4, "traffic": traffic})
    gradients = {"activation_gradients": BACKWARD / 4e6, "weight_gradients": LINEAR / 2e6}
    assert found.strict.parts == pytest.approx(
        {**NOTHING, "forwards": 5 * 4, **gradients, "traffic": traffic}
    )
    assert found.strict.seconds == pytest.approx(20 + BACKWARD / 4e6 + LINEAR / 2e6 + traffic)
    assert found.roofline == pytest.approx((5 * 1_449_984 + BACKWARD) / 4e6 + LINEAR / 2e6)


def test_what_the_initial_method_needs_is_counted_once(load):
    alone, within = (
        floors(work_of(*asked, load), load, RATES)
        for asked in (("sparsegpt", {}), ("llm-barber", {"initial": "sparsegpt"}))
    )
    for mine, whole in ((alone.usual, within.usual), (alone.strict, within.strict)):
        assert (whole.gram, whole.solve) == (mine.gram, mine.solve)


def test_a_floor_of_its_own_needs_a_method_that_is_known(load):
    with pytest.raises(InputError, match="no floor is known for method 'mine'"):
        work_of("mine", {}, load)


def test_experts_are_refused():
    with pytest.raises(InputError, match="mixture of experts"):
        workload(make_model("mixtral"), 2, 8)


def test_the_mean_of_two_floors(load):
    work = work_of("llm-barber", {"initial": "sparsegpt"}, load)
    slower = MachineRates(2e6, 0.5e6, 1e6, 0.5e6, 32, 4)
    before, after = floors(work, load, RATES), floors(work, load, slower)
    mean = mean_floors(before, after)
    # Half the rates are twice the seconds, so that halfway is half as much again.
    for first, between in ((before.usual, mean.usual), (before.strict, mean.strict)):
        assert between.parts == pytest.approx({name: 1.5 * part for name, part in first.parts.items()})
    assert mean.roofline == pytest.approx(1.5 * before.roofline)
    assert mean_floors(after, before) == mean


def test_what_is_measured_is_positive_and_leaves_the_model_as_it_was():
    model = tiny_model().train()
    rates = measure(model, n_samples=4, seqlen=32)
    assert min(rates.model_flops, rates.bytes_per_second, rates.layer_tokens_per_second) > 0
    assert rates.accumulated_flops == rates.fp32_flops == rates.model_flops
    assert rates.batch_size in (1, 4)
    assert model.training
