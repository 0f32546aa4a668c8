"""A pruned model or a result that is not what it should be is found, and said in words to act on."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from methods import contract
from methods.base import PruneResult
from methods.conformance import FAMILIES, Verdict
from methods.conformance.outcome import PROMISES
from methods.llm_barber import LLMBarber
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import parse_pattern
from methods.scores.magnitude import Magnitude
from tests.methods.one_case import outcome


@dataclass(frozen=True)
class Corrupted(Magnitude):
    """Magnitude, with something done to the model or the result afterwards."""

    corrupt: Callable[[Any, PruneResult], Any] = lambda model, result: result

    def prune(self, model, pattern, calibration=None, **kwargs):
        return self.corrupt(model, super().prune(model, pattern, calibration, **kwargs))


def up(model):
    return model.model.layers[0].mlp.up_proj


def survivor(model, result):
    weight = up(model).weight.data
    weight[weight != 0] *= 1.001
    return result


def almost_zero(model, result):
    weight = up(model).weight.data
    weight[weight == 0] = 1e-8
    return result


def embedding(model, result):
    model.model.embed_tokens.weight.data[0, 0] += 1
    return result


def mode(model, result):
    model.model.layers[1].train(not model.training)
    return result


def hook(model, result):
    model.model.layers[1].register_forward_hook(lambda *_: None)
    return result


def forward(model, result):
    model.model.layers[1].forward = model.model.layers[1].forward
    return result


def gradient(model, result):
    up(model).weight.grad = torch.zeros_like(up(model).weight)
    return result


def frozen(model, result):
    up(model).weight.requires_grad_(not up(model).weight.requires_grad)
    return result


def config(model, result):
    model.config.use_cache = not model.config.use_cache
    return result


def other_config(model, result):
    model.config.rms_norm_eps = 1.0
    return result


def buffer(model, result):
    up(model).register_buffer("mask", up(model).weight != 0)
    return result


def grad_mode(model, result):
    torch.set_grad_enabled(False)
    return result


def reparametrized(model, result):
    nn.utils.prune.custom_from_mask(up(model), "weight", up(model).weight != 0)
    return result


def count(model, result):
    keep = result.keep["model.layers.0.mlp.up_proj.weight"].unpack()
    keep.view(-1)[keep.view(-1).nonzero()[0]] = False
    up(model).weight.data.masked_fill_(~keep, 0)
    keep = {**result.keep, "model.layers.0.mlp.up_proj.weight": KeepMask.pack(keep)}
    return PruneResult(keep, result.layers, result.phases)


def too_few(model, result):
    name = "model.layers.0.mlp.up_proj.weight"
    dense = FAMILIES["llama"].build().get_parameter(name).data
    up(model).weight.data.copy_(dense)
    keep = {**result.keep, name: KeepMask.pack(torch.ones_like(dense, dtype=torch.bool))}
    return PruneResult(keep, result.layers, result.phases)


def no_mask(model, result):
    keep = {name: mask for name, mask in result.keep.items() if "up_proj" not in name}
    return PruneResult(keep, result.layers, result.phases)


def a_mask_too_many(model, result):
    head = KeepMask.pack(torch.ones(97, 64, dtype=torch.bool))
    return PruneResult({**result.keep, "lm_head.weight": head}, result.layers, result.phases)


def plain_masks(model, result):
    keep = {name: mask.unpack() for name, mask in result.keep.items()}
    return PruneResult(keep, result.layers, result.phases)


def wrong_report(model, result):
    return PruneResult(result.keep, result.layers[1:], result.phases)


@pytest.mark.parametrize(
    ("corrupt", "promise", "seen", "advice"),
    [
        (survivor, 1, r"layers\.0\.mlp\.up_proj.*surviving weight was changed", "reconstructs = True"),
        (almost_zero, 2, r"up_proj.weight: of 160 outputs x 64 inputs 0 weights are 0, 5120", "n_pruned"),
        (embedding, 1, r"embed_tokens\.weight: is not to be pruned and was changed", "read_decoder"),
        (mode, 4, r"module model\.layers\.1.*: training mode or hooks", "at_rest"),
        (hook, 4, r"module model\.layers\.1: training mode or hooks", "finally"),
        (forward, 4, r"model\.layers\.1: its forward is still replaced", "context manager"),
        (gradient, 4, r"up_proj\.weight: holds a gradient", r"autograd\.grad"),
        (frozen, 4, r"up_proj\.weight: dtype, device or requires_grad", "finally"),
        (config, 4, r"config\.use_cache was changed", "finally"),
        (other_config, 4, r"config\.rms_norm_eps was changed", "finally"),
        (buffer, 4, r"up_proj\.mask: a buffer was added", "in the result"),
        (grad_mode, 4, "gradient mode", "with block"),
        (reparametrized, 4, r"up_proj\.weight.*: a parameter was added or removed", r"prune\.remove"),
        (count, 2, "comparison groups lost a wrong number of weights", "prune_lowest"),
        (too_few, 2, r"up_proj\.weight: of 160 outputs x 64 inputs 0 weights are 0, 5120", "n_pruned"),
        (no_mask, 1, r"up_proj\.weight: has no mask \(2 of 14", r"target\.mask_name"),
        (a_mask_too_many, 1, r"lm_head\.weight: has a mask but is not a target", "mask_name"),
        (plain_masks, 0, "its mask is a Tensor", r"target\.pack"),
        (wrong_report, 0, r"q_proj: the report says None pruned", r"target\.name"),
        (lambda model, result: result.keep, 0, r"prune\(\) returned dict", "PruneResult"),
        (lambda model, result: None, 0, r"prune\(\) returned NoneType", "PruneResult"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_promise_is_found_and_said_in_words(corrupt, promise, seen, advice):
    with torch.enable_grad():
        found = outcome(Corrupted(corrupt))
    assert found.verdict is Verdict.BROKEN
    assert found.broken.promise == promise
    assert found.reason.startswith(f"promise {promise} (")
    assert "llama at 0.5, fp32 (weights in float32, three batches): " in found.reason
    assert re.search(seen, found.reason), found.reason
    assert re.search(advice, found.broken.advice), found.broken.advice


def test_every_finding_of_the_contract_has_advice():
    """A finding that the contract can word, but that nobody says what to do about, is found here."""
    tree = ast.parse(Path(contract.__file__).read_text())
    raised = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ContractError"
    ]
    assert len(raised) >= 12
    for node in raised:
        promise, advice = map(ast.literal_eval, node.args[1:])
        assert promise in PROMISES and advice.endswith(".")


def test_a_wrong_initial_mask_is_found():
    @dataclass(frozen=True)
    class Generous(LLMBarber):
        def prune(self, model, pattern, calibration, **kwargs):
            return super().prune(model, parse_pattern("0.4"), calibration, **kwargs)

    found = outcome(Generous())
    assert found.broken.promise == 2
    assert "comparison groups" in found.reason


@pytest.mark.parametrize("group", [(0, 64), 64, (1.0, 64), "row"])
def test_a_comparison_group_is_two_whole_numbers(group):
    @dataclass(frozen=True)
    class Vague(Magnitude):
        def comparison_group(self, shape, pattern):
            return group

    found = outcome(Vague())
    assert found.broken.promise == 0
    assert "comparison_group((64, 64), 0.5) returned" in found.reason


def test_without_a_comparison_group_the_whole_model_is_counted():
    @dataclass(frozen=True)
    class Whole(Magnitude):
        share: str = ""

        def comparison_group(self, shape, pattern):
            return None

        def prune(self, model, pattern, calibration=None, **kwargs):
            return super().prune(model, parse_pattern(self.share or str(pattern)), calibration, **kwargs)

    assert outcome(Whole()).verdict is Verdict.KEPT
    assert "0.300 of all weights were removed, 0.500 were asked for" in outcome(Whole("0.3")).reason
