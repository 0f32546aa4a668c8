"""Compares each building block of the methods with its floor and with a plain implementation."""

from functools import partial

import pytest
import torch

from benchmarks import plain
from benchmarks.machine import best_seconds, copy_rate, product_rate
from benchmarks.work import Matrix, column_flops
from methods.engine.statistics import GramMatrix, InputNorms, SquaredGradients
from methods.masks.pattern import SemiStructured, parse_pattern
from methods.masks.selection import prune_lowest, prune_n_of_m
from methods.refinements.barber_swaps import rebuild, rebuild_n_of_m
from methods.updates.inverse_factor import inverse_factor
from methods.updates.sparsegpt_columns import solve_columns
from suite.evaluation.scoring.windows import score_windows

ROWS, COLUMNS = 1024, 1024
TOKENS, SAMPLES = 2048, 8
RATIO = 0.1
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scores():
    return torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def activations():
    return torch.randn(TOKENS, COLUMNS, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def weight():
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(4))


def timed(benchmark, work):
    return benchmark.pedantic(work, rounds=3, warmup_rounds=1)


def moved(*tensors):
    """Returns the seconds to read or write all of these tensors once."""
    return sum(tensor.nbytes for tensor in tensors) / copy_rate(CPU, 2**26)


def multiplied(flops):
    """Returns the seconds for `flops` of fp32 products."""
    return flops / product_rate(torch.float32, CPU, 1024)


def split(rows):
    return torch.split(rows, TOKENS // SAMPLES)


@pytest.mark.parametrize("group", ["row", "layer"])
def test_prune_lowest(benchmark, judge, scores, group):
    grouped = scores if group == "row" else scores.reshape(1, -1)
    k = grouped.shape[1] // 2
    ours = timed(benchmark, lambda: prune_lowest(grouped, k))
    twin = plain.prune_lowest(grouped, k)
    judge.compare(
        f"prune_lowest, half of each {group}",
        moved(grouped, ours),
        lambda: plain.prune_lowest(grouped, k),
    )
    assert torch.equal(ours, twin)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_prune_n_of_m(benchmark, judge, scores, n, m):
    ours = timed(benchmark, lambda: prune_n_of_m(scores, SemiStructured(n, m)))
    judge.compare(f"prune {n}:{m}", moved(scores, ours), lambda: plain.prune_n_of_m(scores, n, m))
    assert torch.equal(ours, plain.prune_n_of_m(scores, n, m))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_input_norms(benchmark, judge, activations, dtype):
    x = activations.to(dtype)

    def gather():
        norms = InputNorms(COLUMNS, CPU)
        norms.add(x)
        return norms.value

    ours = timed(benchmark, gather)
    judge.compare(f"InputNorms, {dtype}", moved(x), lambda: plain.input_norms(split(x)))
    torch.testing.assert_close(ours, plain.input_norms(split(x)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gram_matrix(benchmark, judge, activations, dtype):
    x = activations.to(dtype)

    def gather():
        gram = GramMatrix(COLUMNS, CPU)
        gram.add(x)
        return gram.value

    ours = timed(benchmark, gather)
    seconds = multiplied(2 * TOKENS * COLUMNS**2)
    triangle = seconds * (COLUMNS + 1) / (2 * COLUMNS)
    judge.compare(f"GramMatrix, {dtype}", seconds, lambda: plain.gram(split(x)), strict_seconds=triangle)
    torch.testing.assert_close(ours, plain.gram(split(x)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squared_gradients(benchmark, judge, activations, weight, dtype):
    x, dy = activations.to(dtype), activations.flip(0).to(dtype)

    def gather():
        gradients = SquaredGradients((ROWS, COLUMNS), CPU)
        gradients.add(x, dy, [TOKENS // SAMPLES] * SAMPLES)
        return gradients.value

    ours = timed(benchmark, gather)
    seconds = multiplied(2 * TOKENS * ROWS * COLUMNS)
    judge.compare(
        f"SquaredGradients, {dtype}", seconds, lambda: plain.squared_gradients(weight, split(x), split(dy))
    )
    torch.testing.assert_close(
        ours, plain.squared_gradients(weight, split(x), split(dy)), rtol=1e-3, atol=1e-1
    )


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_rebuild(benchmark, judge, scores, pattern):
    judged = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(5))
    if pattern == "0.5":
        keep = prune_lowest(scores, COLUMNS // 2)
        work = partial(rebuild, keep, judged, "output", RATIO)
        plainly = partial(plain.rebuild, keep, judged, RATIO)
    else:
        keep = prune_n_of_m(scores, SemiStructured(2, 4))
        work = partial(rebuild_n_of_m, keep, judged, 4, RATIO, guard=True)
        plainly = partial(plain.rebuild_n_of_m, keep, judged, 4, RATIO)
    ours = timed(benchmark, work)
    judge.compare(f"rebuild by rows, {pattern}", moved(keep, judged, ours), plainly)
    assert torch.equal(ours, plainly())
    assert not torch.equal(ours, keep)


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_solve_columns(benchmark, judge, activations, weight, pattern):
    factor, _ = inverse_factor("the benchmark", activations.T @ activations, 0.01)
    how = {"sparsity": 0.5} if pattern == "0.5" else {"n_of_m": (2, 4)}
    keep, solved = timed(benchmark, lambda: solve_columns(weight, factor, parse_pattern(pattern), 128))
    matrix = Matrix(ROWS, COLUMNS, leads=True, from_block_input=True)
    seconds = multiplied(column_flops(matrix))
    judge.compare(f"solve_columns, {pattern}", seconds, lambda: plain.solve_columns(weight, factor, **how))
    twin_keep, twin = plain.solve_columns(weight, factor, **how)
    assert float((keep == twin_keep).float().mean()) > 0.9999
    agreed = keep & twin_keep
    torch.testing.assert_close(solved[agreed], twin[agreed], rtol=1e-2, atol=1e-2)


def test_perplexity(benchmark, judge, model, calibration):
    ids = calibration.input_ids
    ours = timed(benchmark, lambda: score_windows(model, ids).nll)
    with torch.no_grad():
        forward = best_seconds(lambda: model(input_ids=ids, use_cache=False), CPU, tries=2)
    judge.compare("score_windows", forward, lambda: plain.window_losses(model, ids))
    torch.testing.assert_close(ours, plain.window_losses(model, ids), rtol=1e-4, atol=0)
