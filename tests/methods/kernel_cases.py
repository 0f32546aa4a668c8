"""What `test_kernels` runs in a process of its own, where Triton interprets kernels on the CPU."""

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.masks.pattern import SemiStructured, UniformPattern, parse_pattern
from methods.masks.selection import prune_lowest
from methods.updates import sparsegpt_block as block
from methods.updates import sparsegpt_columns as columns
from methods.updates import sparsegpt_kernel as kernel


def random_factor(size: int, generator: torch.Generator) -> Tensor:
    """U as it comes from inputs that are correlated: upper triangular, pivots well above 0."""
    x = torch.randn(4 * size + 8, size, generator=generator)
    x = x @ (torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator) / size**0.5)
    hessian = x.T @ x / len(x) + 0.01 * torch.eye(size)
    return torch.linalg.cholesky(torch.linalg.inv(hessian)).T.contiguous()


def random_case(rows: int, inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, inputs, generator=generator), random_factor(inputs, generator)


def solved(
    solve: columns.BlockSolver, weight: Tensor, factor: Tensor, pattern: UniformPattern, start: int, end: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, mask and errors of one block; all that lies beside the block has to stay as it is."""
    weight, keep = weight.clone(), torch.zeros(weight.shape, dtype=torch.bool)
    if not isinstance(pattern, SemiStructured):
        scores = (weight[:, start:end] / factor.diagonal()[start:end]).square().reshape(1, -1)
        keep[:, start:end] = prune_lowest(scores, pattern.n_pruned(scores.numel())).reshape(len(weight), -1)
    before, marked = weight.clone(), keep.clone()
    errors = solve(weight, keep, factor, pattern, start, end)
    beside = torch.ones(weight.shape[1], dtype=torch.bool)
    beside[start:end] = False
    assert torch.equal(weight[:, beside], before[:, beside])
    assert torch.equal(keep[:, beside], marked[:, beside])
    return weight[:, start:end], keep[:, start:end], errors


def agree(weight: Tensor, factor: Tensor, pattern: str, start: int, end: int) -> Tensor:
    """Holds the kernel against its twin on one block; the mask they agree on."""
    read = parse_pattern(pattern)
    new, keep, errors = solved(kernel.solve_block, weight, factor, read, start, end)
    twins, twins_keep, twins_errors = solved(block.solve_block, weight, factor, read, start, end)
    twins = twins.masked_fill(~twins_keep, 0)
    assert torch.equal(keep, twins_keep)
    assert not new[~keep].any()
    assert (new - twins).norm() <= 1e-6 * twins.norm()
    assert (errors - twins_errors).norm() <= 1e-6 * twins_errors.norm()
    return keep


@pytest.mark.parametrize("pattern", ["0", "0.29", "0.5"])
@pytest.mark.parametrize(("rows", "inputs", "start", "end"), [(16, 128, 0, 128), (21, 150, 128, 150)])
def test_unstructured(pattern, rows, inputs, start, end):
    keep = agree(*random_case(rows, inputs, 1), pattern, start, end)
    assert int((~keep).sum()) == parse_pattern(pattern).n_pruned(rows * (end - start))


@pytest.mark.parametrize(
    ("pattern", "rows", "start", "end"),
    [
        ("2:4", 16, 0, 128),
        ("2:4", 5, 128, 140),
        ("4:8", 19, 64, 128),
        ("1:4", 33, 0, 36),
        ("3:6", 17, 126, 192),
        ("2:5", 3, 0, 125),
        ("4:4", 4, 0, 64),
        ("1:1", 2, 0, 3),
        ("16:32", 9, 0, 128),
        ("9:40", 3, 0, 120),
        ("70:150", 2, 0, 150),
    ],
)
def test_n_of_m(pattern, rows, start, end):
    weight, factor = random_case(rows, end, 2)
    keep = agree(weight, factor, pattern, start, end)
    n, m = (int(part) for part in pattern.split(":"))
    assert (keep.reshape(rows, -1, m).sum(-1) == n).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "1:3"])
def test_any_shape(pattern, seed):
    generator = np.random.default_rng(seed)
    m = parse_pattern(pattern).m if ":" in pattern else 1
    start, width = (int(generator.integers(low, 120 // m)) * m for low in (0, 1))
    rows = int(generator.integers(1, 25))
    agree(*random_case(rows, start + width, seed), pattern, start, start + width)


@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 64, 65, 200])
def test_any_width(width):
    agree(*random_case(3, width, 3), "0.5", 0, width)


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "4:8", "3:6", "1:4", "7:24"])
def test_of_equal_scores_the_earlier_go(pattern):
    # Without correlation nothing is spread, so weights that are equal stay so: every group is full of ties.
    weight = torch.randn(20, 48, generator=torch.Generator().manual_seed(4)).mul(2).round() / 2
    keep = agree(weight, 0.75 * torch.eye(48), pattern, 0, 48)
    flat = agree(torch.ones(20, 48), torch.eye(48), pattern, 0, 48)
    if ":" in pattern:
        n, m = (int(part) for part in pattern.split(":"))
        assert flat.tolist() == [([False] * (m - n) + [True] * n) * (48 // m)] * 20
    else:
        assert flat.flatten().tolist() == [False] * 480 + [True] * 480
    assert not keep.all()


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "4:8"])
def test_rounded_weights_and_dead_inputs(pattern):
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(18, 96, generator=generator).mul(4).round() / 4
    factor = random_factor(96, generator)
    dead = torch.arange(96) % 5 < 2
    weight[:, dead] = 0
    factor[dead] = 0
    factor[:, dead] = 0
    factor.diagonal()[dead] = 1
    agree(weight, factor, pattern, 0, 96)


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "3:6"])
def test_the_whole_walk(pattern, monkeypatch):
    read = parse_pattern(pattern)
    weight, factor = random_case(13, 156, 6)
    width = block.block_size(read, 64)
    keep, new = columns.solve_columns(weight, factor, read, width)
    monkeypatch.setattr(columns, "block_solver", lambda weight: kernel.solve_block)
    by_kernel, new_by_kernel = columns.solve_columns(weight, factor.T.contiguous().T, read, width)
    assert torch.equal(by_kernel, keep)
    assert (new_by_kernel - new).norm() <= 1e-6 * new.norm()
