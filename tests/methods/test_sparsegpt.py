"""SparseGPT decides and reconstructs what optimal brain surgery, done column by column, does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.base import Placement
from methods.errors import InputError, SingularHessianError
from methods.masks.pattern import parse_pattern
from methods.registry import build
from methods.scores.sparsegpt import SparseGPT
from methods.updates.inverse_factor import inverse_factor
from methods.updates.sparsegpt_block import block_size
from methods.updates.sparsegpt_columns import solve_columns
from tests.methods import oracles
from tests.methods.problems import problem_of
from tests.methods.tiny_models import make_calibration, make_model


def random_layer(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight `[rows, columns]`, and the Hessian of inputs that are correlated and of uneven size."""
    generator = np.random.default_rng(seed)
    mix = np.eye(columns) + 0.3 * generator.normal(size=(columns, columns)) / np.sqrt(columns)
    inputs = generator.normal(size=(6 * columns + 10, columns)) @ mix * generator.uniform(0.3, 3, columns)
    return generator.normal(size=(rows, columns)), oracles.hessian([inputs])


def indefinite(below_zero: float, size: int = 8) -> torch.Tensor:
    """A symmetric matrix with mean diagonal 1 whose lowest eigenvalue is `-below_zero`."""
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(size, size)))[0]
    eigenvalues = np.array([-below_zero] + [(size + below_zero) / (size - 1)] * (size - 1))
    return torch.from_numpy(basis @ np.diag(eigenvalues) @ basis.T).float()


def solve_alone(method, weight, hessian, pattern):
    """One Linear, with a Hessian that no other shares."""
    return method.choose(problem_of(weight, hessian, pattern))


def as_tensors(*arrays: np.ndarray, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.from_numpy(array).to(dtype) for array in arrays]


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.integers(1, 24),
    st.sampled_from(["0", "0.29", "0.5", "0.7", "0.95"]),
    st.sampled_from([1, 3, 8, 128]),
)
def test_each_block_of_columns_loses_its_cheapest_weights(seed, rows, columns, pattern, width):
    weight, hessian = random_layer(seed, rows, columns)
    keep, expected = oracles.sparsegpt(weight, hessian, pattern, width)
    solved = solve_alone(SparseGPT(block_size=width), *as_tensors(weight, hessian), parse_pattern(pattern))
    assert np.array_equal(solved.keep.numpy(), keep)
    np.testing.assert_allclose(solved.weight.numpy(), expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from(["2:4", "1:4", "4:8", "1:3", "5:6"]),
    st.sampled_from([1, 8, 10, 128]),
)
def test_each_group_of_m_is_chosen_on_the_updated_weights(seed, rows, groups, pattern, width):
    weight, hessian = random_layer(seed, rows, groups * int(pattern[-1]))
    keep, expected = oracles.sparsegpt(weight, hessian, pattern)
    solved = solve_alone(SparseGPT(block_size=width), *as_tensors(weight, hessian), parse_pattern(pattern))
    assert np.array_equal(solved.keep.numpy(), keep)
    np.testing.assert_allclose(solved.weight.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("pattern", ["0.5", "0.8", "2:4", "4:8"])
def test_fp32_decides_the_same_as_float64(pattern):
    weight, hessian = random_layer(1, 32, 160)
    keep, expected = oracles.sparsegpt(weight, hessian, pattern)
    solved = solve_alone(
        SparseGPT(), *as_tensors(weight, hessian, dtype=torch.float32), parse_pattern(pattern)
    )
    assert solved.weight.dtype == torch.float32
    assert np.array_equal(solved.keep.numpy(), keep)
    np.testing.assert_allclose(solved.weight.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_reconstruction_makes_up_for_what_was_removed():
    weight, hessian = random_layer(2, 16, 48)
    solved = solve_alone(SparseGPT(), *as_tensors(weight, hessian), parse_pattern("0.5"))
    merely_masked = np.where(solved.keep.numpy(), weight, 0)

    def output_error(new: np.ndarray) -> float:
        return float(np.trace((new - weight) @ hessian @ (new - weight).T))

    assert output_error(solved.weight.numpy()) < output_error(merely_masked)


def test_of_zero_weights_the_lower_flat_index_goes_first():
    weight, hessian = random_layer(3, 4, 10)
    weight[:, 2:9] = 0
    keep, _ = oracles.sparsegpt(weight, hessian, "0.3")
    solved = solve_alone(SparseGPT(), *as_tensors(weight, hessian), parse_pattern("0.3"))
    assert np.array_equal(solved.keep.numpy(), keep)
    assert (~keep).sum(axis=1).tolist() == [7, 5, 0, 0]


@pytest.mark.parametrize("pattern", ["0.2", "0.5", "2:4"])
def test_weights_of_dead_inputs_become_zero_and_are_reported(pattern):
    weight, hessian = random_layer(4, 5, 16)
    dead = [0, 3, 5, 6, 7, 12, 15]
    hessian[dead] = 0
    hessian[:, dead] = 0
    keep, expected = oracles.sparsegpt(weight, hessian, pattern)
    solved = solve_alone(SparseGPT(), *as_tensors(weight, hessian), parse_pattern(pattern))
    assert np.array_equal(solved.keep.numpy(), keep)
    np.testing.assert_allclose(solved.weight.numpy(), expected, rtol=1e-8, atol=1e-10)
    assert not solved.weight[:, dead].any()
    assert solved.weight_warnings == ("7 inputs were never active; their weights were set to 0",)


def test_a_linear_that_reads_nothing_but_zeros_is_still_pruned_to_the_count():
    weight = torch.ones(3, 8)
    solved = solve_alone(SparseGPT(), weight, torch.zeros(8, 8), parse_pattern("0.5"))
    assert int(solved.keep.sum()) == 12
    assert not solved.weight.any()


def test_what_it_is_given_is_left_as_it_is():
    weight, hessian = as_tensors(*random_layer(6, 4, 12))
    hessian[2] = hessian[:, 2] = 0
    before = weight.clone(), hessian.clone()
    solve_alone(SparseGPT(), weight, hessian, parse_pattern("0.5"))
    factor, _ = inverse_factor("layer", hessian + torch.eye(12), 0.01)
    solve_columns(weight, factor, parse_pattern("2:4"), 4)
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


@pytest.mark.parametrize("damping", [0.01, 0.3])
def test_the_factor_is_that_of_the_damped_inverse(damping):
    _, hessian = random_layer(7, 1, 20)
    factor, used = inverse_factor("layer", torch.from_numpy(hessian), damping)
    damped = hessian + damping * np.mean(np.diag(hessian)) * np.eye(20)
    assert used == damping
    assert torch.equal(factor, factor.triu())
    np.testing.assert_allclose((factor.T @ factor).numpy() @ damped, np.eye(20), atol=1e-9)


@pytest.mark.parametrize(("below_zero", "damping"), [(0.005, 0.01), (0.05, 0.1), (0.5, 1.0), (5.0, 10.0)])
def test_damping_is_raised_tenfold_until_the_hessian_can_be_factorized_and_recorded(below_zero, damping):
    hessian = indefinite(below_zero)
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(8))
    solved = solve_alone(SparseGPT(), weight, hessian, parse_pattern("0.5"))
    assert solved.damping == pytest.approx(damping)
    said = (f"the Hessian needed damping {damping:g} instead of 0.01",) if damping > 0.01 else ()
    assert solved.warnings == said
    keep, expected = oracles.sparsegpt(
        weight.double().numpy(), hessian.double().numpy(), "0.5", damping=damping
    )
    assert np.array_equal(solved.keep.numpy(), keep)
    np.testing.assert_allclose(solved.weight.numpy(), expected, rtol=1e-2, atol=1e-3)


def test_a_hessian_beyond_the_third_raise_is_an_error_that_names_the_module():
    with pytest.raises(SingularHessianError, match=r"model\.layers\.3\.mlp\.down_proj.*damping 10$"):
        SparseGPT().choose(
            problem_of(torch.ones(4, 8), indefinite(50.0), "0.5", name="model.layers.3.mlp.down_proj")
        )


@pytest.mark.parametrize(
    ("pattern", "wanted", "width"),
    [
        ("0.5", 128, 128),
        ("0.5", 1, 1),
        ("2:4", 128, 128),
        ("1:3", 128, 126),
        ("5:10", 128, 120),
        ("2:4", 3, 4),
        ("100:200", 128, 200),
    ],
)
def test_a_block_holds_whole_groups_of_m(pattern, wanted, width):
    assert block_size(parse_pattern(pattern), wanted) == width


@pytest.mark.parametrize("pattern", ["1:3", "5:11"])
def test_m_need_not_divide_the_block_of_128_columns(pattern):
    weight, hessian = random_layer(9, 3, 132)
    keep, expected = oracles.sparsegpt(weight, hessian, pattern)
    solved = solve_alone(SparseGPT(), *as_tensors(weight, hessian), parse_pattern(pattern))
    assert np.array_equal(solved.keep.numpy(), keep)
    np.testing.assert_allclose(solved.weight.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("settings", [{"damping": 0.0}, {"damping": float("nan")}, {"block_size": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        build("sparsegpt", settings)


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
@pytest.mark.parametrize("family", ["llama", "opt", "opt-post-norm"])
def test_a_whole_model_is_pruned_as_the_oracle_prunes_it(family, pattern):
    model, plain = make_model(family).eval(), make_model(family).eval()
    calibration = make_calibration()
    result = SparseGPT().prune(model, parse_pattern(pattern), calibration, placement=Placement(2))
    agreeing: list[bool] = []

    def decide(name, weight, samples):
        keep, expected = oracles.sparsegpt(weight, oracles.hessian(samples), pattern)
        ours = result.keep[f"{name}.weight"].unpack().numpy()
        reconstructed = model.get_parameter(f"{name}.weight").detach().numpy()
        same = (ours == keep).all(axis=1)
        agreeing.extend(same)
        assert np.linalg.norm((reconstructed - expected)[same]) <= 1e-3 * np.linalg.norm(expected[same])
        # Where rounding turns one choice it turns the rest of the row and of the model after it; so every
        # Linear is judged on what the model under test passed on to it.
        return ours, reconstructed

    oracles.prune_layers(plain, calibration.input_ids, decide)
    assert sum(agreeing) >= 0.995 * len(agreeing)
    assert {report.damping for report in result.layers} == {0.01}
