"""Whether a prune changed something is asked of the bits: NaN is no change, the sign of a zero is one."""

import pytest
import torch

from methods.conformance.checks import Before, check_left_as_it_was, check_untouched
from methods.conformance.outcome import BrokenPromiseError
from methods.contract import ModelState, check_contract
from methods.errors import ContractError
from methods.masks.pattern import parse_pattern
from methods.registry import build, names
from tests.methods.tiny_models import make_calibration, make_model

HEAD, TARGET = "lm_head.weight", "model.layers.0.mlp.up_proj.weight"


def pruned(model, method="magnitude", sparsity="0.5"):
    """What `check_contract` is given after a prune."""
    pattern, before = parse_pattern(sparsity), ModelState.of(model)
    result = build(method).prune(model, pattern, make_calibration())
    return build(method), pattern, before, model, result


@pytest.mark.parametrize("method", names())
def test_a_nan_where_nothing_is_pruned_is_no_change(method):
    model = make_model("llama")
    model.get_parameter(HEAD).data[3, 5] = float("nan")
    check_contract(*pruned(model, method))


def test_a_zero_of_another_sign_where_nothing_is_pruned_is_a_change():
    model = make_model("llama")
    model.get_parameter(HEAD).data[3, 5] = 0.0
    made = pruned(model)
    model.get_parameter(HEAD).data[3, 5] = -0.0
    with pytest.raises(ContractError, match=r"lm_head\.weight: is not a target module and was changed"):
        check_contract(*made)


def test_a_survivor_that_is_a_zero_of_another_sign_was_changed():
    model = make_model("llama")
    model.get_parameter(TARGET).data[3, 5] = -0.0
    made = pruned(model, sparsity="0")
    check_contract(*made)
    model.get_parameter(TARGET).data[3, 5] = 0.0
    with pytest.raises(ContractError, match=r"up_proj\.weight: a surviving weight was changed"):
        check_contract(*made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("method", [name for name in names() if name != "sparsegpt"])
def test_survivors_keep_the_sign_of_a_zero(method, family, dtype):
    model = make_model(family, dtype)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data[..., 2] = -0.0
    check_contract(*pruned(model, method, sparsity="0.1"))


def test_the_conformance_checks_ask_for_the_bits():
    model = make_model("llama")
    model.get_parameter(HEAD).data[3, 5] = float("nan")
    model.register_buffer("noted", torch.tensor([float("nan"), 0.0]))
    before = Before.of(model)
    check_untouched(before, model, 1, "at sparsity 0", "")
    check_left_as_it_was(before, model)
    model.noted[1] = -0.0
    with pytest.raises(BrokenPromiseError, match="noted: a buffer was added, removed or changed"):
        check_left_as_it_was(before, model)
    model.get_parameter(HEAD).data[3, 6] = 0.0
    before = Before.of(model)
    model.get_parameter(HEAD).data[3, 6] = -0.0
    with pytest.raises(BrokenPromiseError, match=r"lm_head\.weight: was changed"):
        check_untouched(before, model, 1, "at sparsity 0", "")
