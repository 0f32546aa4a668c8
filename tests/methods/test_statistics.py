"""What is summed over the calibration tokens is the same sum, whatever the dtype and the batches."""

import copy

import pytest
import torch
from torch import nn

from methods.engine.statistics import GramMatrix, InputNorms, SharedInputs, SquaredGradients, add_unit_inputs
from methods.structure.target import Target

CPU = torch.device("cpu")


def tokens(n: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_and_products_are_summed_in_fp32(dtype):
    x = tokens(5000, 6, dtype)
    norms, gram = InputNorms(6, CPU), GramMatrix(6, CPU)
    for part in x.split(700):
        norms.add(part)
        gram.add(part)
    exact = x.double()
    assert norms.value.dtype == gram.value.dtype == torch.float32
    torch.testing.assert_close(norms.value.double(), exact.square().sum(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(gram.value.double(), exact.T @ exact, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(gram.value.diagonal(), norms.value, rtol=1e-5, atol=0)


def test_fp16_activations_whose_squares_overflow_fp16_are_summed():
    x = torch.full((3, 2), 1000.0, dtype=torch.float16)
    norms, gram = InputNorms(2, CPU), GramMatrix(2, CPU)
    norms.add(x)
    gram.add(x)
    assert norms.value.tolist() == [3e6, 3e6]
    assert gram.value.tolist() == [[3e6, 3e6]] * 2


def test_statistics_are_made_to_the_size_of_the_inputs():
    target = target_of("linear", nn.Linear(5, 3))
    assert InputNorms.of(target).value.shape == (5,)
    assert GramMatrix.of(target).value.shape == (5, 5)


def test_gradients_are_squared_sample_by_sample():
    x, dy = tokens(12, 4, seed=1), tokens(12, 3, seed=2)
    squares = SquaredGradients((3, 4), CPU)
    squares.add(x[:8], dy[:8], [4, 4])
    squares.add(x[8:], dy[8:], [4])
    expected = torch.zeros(3, 4)
    for sample in range(3):
        at = slice(4 * sample, 4 * sample + 4)
        expected += (dy[at].T @ x[at]) ** 2
    torch.testing.assert_close(squares.value, expected)


def test_opposite_gradients_of_two_samples_do_not_cancel():
    x, dy = tokens(6, 4, seed=1), tokens(6, 3, seed=2)
    squares = SquaredGradients((3, 4), CPU)
    squares.add(torch.cat([x, x]), torch.cat([dy, -dy]), [6, 6])
    torch.testing.assert_close(squares.value, 2 * (dy.T @ x) ** 2)


def test_samples_may_have_unequal_shares_of_the_tokens_or_none():
    x, dy = tokens(6, 4, seed=1), tokens(6, 3, seed=2)
    squares = SquaredGradients((3, 4), CPU)
    squares.add(x, dy, [5, 0, 1])
    expected = (dy[:5].T @ x[:5]) ** 2 + (dy[5:].T @ x[5:]) ** 2
    torch.testing.assert_close(squares.value, expected)


def test_unit_inputs_prefer_no_input():
    norms, gram = InputNorms(1500, CPU), GramMatrix(1500, CPU)
    add_unit_inputs(norms, 1500, CPU)
    add_unit_inputs(gram, 1500, CPU)
    assert torch.equal(norms.value, torch.ones(1500))
    assert torch.equal(gram.value, torch.eye(1500))


def target_of(name: str, module: nn.Module) -> Target:
    return Target(name, module, "weight", f"{name}.weight")


def targets_of(module: nn.Module) -> dict[str, Target]:
    return {name: target_of(name, child) for name, child in module.named_children()}


class Gated(nn.Module):
    """gate and up read one tensor, down another, and `copied` an equal one that is not the same."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down, self.copied = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        return self.down(self.gate(x) * self.up(x)) + self.copied(x.clone())


def test_linears_that_read_the_same_tensor_share_one_statistic():
    module = Gated()
    targets = targets_of(module)
    made = []

    def new(target):
        made.append(target.name)
        return GramMatrix.of(target)

    shared = SharedInputs(targets, new)
    batches = [tokens(n, 4, seed=n).reshape(n // 3, 3, 4) for n in (6, 9, 3)]
    with torch.no_grad():
        for x in batches:
            with shared.collecting():
                module(x)
    assert shared.groups == {"gate": ["gate", "up"], "down": ["down"], "copied": ["copied"]}
    assert sorted(made) == ["copied", "down", "gate"]
    assert shared.n_tokens("up") == shared.n_tokens("down") == 18
    assert shared["up"] is shared["gate"]
    x = torch.cat([batch.reshape(-1, 4) for batch in batches])
    torch.testing.assert_close(shared["up"].value, x.T @ x)
    torch.testing.assert_close(shared["copied"].value, x.T @ x)
    assert not torch.allclose(shared["down"].value, x.T @ x)


def test_collecting_leaves_no_hook_even_after_an_exception():
    module = Gated()
    shared = SharedInputs(targets_of(module), InputNorms.of)
    with pytest.raises(RuntimeError), shared.collecting():
        module(tokens(2, 5))
    assert all(not child._forward_pre_hooks and not child._forward_hooks for child in module.modules())


def test_collecting_changes_no_output():
    module, x = Gated(), tokens(6, 4)
    expected = copy.deepcopy(module)(x)
    with SharedInputs(targets_of(module), GramMatrix.of).collecting():
        assert torch.equal(module(x), expected)
