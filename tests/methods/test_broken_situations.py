"""A promise that a method breaks in one situation only is found, and said in words to act on."""

import contextlib
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from methods.base import PruneResult
from methods.conformance import FAMILIES, Verdict
from methods.errors import InputError, PruningError
from methods.masks.pattern import SemiStructured, parse_pattern
from methods.scores.wanda import Wanda
from tests.methods.one_case import outcome
from tests.methods.tiny_models import make_calibration


def misbehaving(prune):
    """Wanda with another prune, `prune(super's, model, pattern, calibration, on_layer)`."""

    @dataclass(frozen=True)
    class Misbehaving(Wanda):
        def prune(self, model, pattern, calibration, *, placement, on_layer):
            def proper(model, pattern=pattern, calibration=calibration, on_layer=on_layer):
                return super(Misbehaving, self).prune(
                    model, pattern, calibration, placement=placement, on_layer=on_layer
                )

            return prune(proper, model, pattern, calibration, on_layer)

    return Misbehaving()


def random_masks(proper, model, pattern, calibration, on_layer):
    for parameter in model.parameters():
        parameter.data += 1e-3 * torch.randn_like(parameter)
    noisy = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = proper(model)
    dense = FAMILIES["llama"].build()
    for name, parameter in model.named_parameters():
        kept = result.keep[name].unpack() if name in result.keep else torch.ones_like(noisy[name]) > 0
        parameter.data.copy_(dense.get_parameter(name).data * kept)
    return result


def hook_left_on_errors(proper, model, pattern, calibration, on_layer):
    handle = model.register_forward_hook(lambda *_: None)
    result = proper(model)
    handle.remove()
    return result


def writes_and_then_refuses(proper, model, pattern, calibration, on_layer):
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 0
    raise InputError("method 'mine' cannot do this")


def refuses_in_two_lines(proper, model, pattern, calibration, on_layer):
    raise InputError("this cannot be done\nand here is why")


def crashes(proper, model, pattern, calibration, on_layer):
    return {}["up_proj"]


def numpy_alone(proper, model, pattern, calibration, on_layer):
    model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    return proper(model)


def gives_up(proper, model, pattern, calibration, on_layer):
    raise PruningError("model.layers.0.mlp.up_proj: too hard")


def says_nothing_where(proper, model, pattern, calibration, on_layer):
    try:
        return proper(model)
    except PruningError as error:
        raise PruningError("something is NaN") from error


def nan_to_zero(proper, model, pattern, calibration, on_layer):
    for parameter in model.parameters():
        parameter.data.nan_to_num_(posinf=1.0)
    return proper(model)


def swallows(proper, model, pattern, calibration, on_layer):
    def quiet(report):
        with contextlib.suppress(Exception):
            on_layer(report)

    return proper(model, on_layer=quiet)


def tells_nobody(proper, model, pattern, calibration, on_layer):
    return proper(model, on_layer=lambda _: None)


def rounds_the_pattern(proper, model, pattern, calibration, on_layer):
    fits = parse_pattern("2:4") if str(pattern) == "3:7" else pattern
    return proper(model, pattern=fits)


def fails_late_on_m(proper, model, pattern, calibration, on_layer):
    if str(pattern) == "3:7":
        raise PruningError("model.layers.0.self_attn.q_proj: 7 does not divide 64")
    return proper(model)


def names_no_module(proper, model, pattern, calibration, on_layer):
    if str(pattern) == "3:7":
        raise InputError("method 'mine': 7 does not fit")
    return proper(model)


def makes_up_calibration(proper, model, pattern, calibration, on_layer):
    return proper(model, calibration=calibration or make_calibration())


def shuffles_tokens(proper, model, pattern, calibration, on_layer):
    calibration.input_ids[0] = calibration.input_ids[0].flip(0)
    return proper(model)


def one_sparsity_for_all(proper, model, pattern, calibration, on_layer):
    return proper(model, pattern=parse_pattern(str(pattern)))


def at_least_a_tenth(proper, model, pattern, calibration, on_layer):
    return proper(model, pattern=pattern if pattern.target else parse_pattern("0.1"))


def remembers(proper, model, pattern, calibration, on_layer):
    if getattr(model, "_seen", False):
        raise RuntimeError("pruned before")
    model._seen = True
    return proper(model)


@pytest.mark.parametrize(
    ("prune", "situation", "promise", "seen", "advice"),
    [
        (random_masks, "fp32", 3, r"a second prune of the same weights gave another mask", "torch.Generator"),
        (remembers, "fp32", 3, "a second prune of the same weights failed: RuntimeError", "Keep nothing"),
        (
            hook_left_on_errors,
            "nan-weight",
            4,
            r"hooks .*\(after a PruningError",
            "with blocks",
        ),
        (hook_left_on_errors, "interrupted", 4, r"hooks .*\(after on_layer", "with blocks"),
        (
            hook_left_on_errors,
            "indivisible",
            4,
            r"hooks .*\(after an InputError",
            "with blocks",
        ),
        (
            writes_and_then_refuses,
            "fp32",
            5,
            r"up_proj\.weight: was changed although",
            "first",
        ),
        (refuses_in_two_lines, "fp32", 5, "the InputError is not one line", "in one"),
        (crashes, "fp32", 5, r"KeyError: 'up_proj' \(test_broken.*in crashes: return \{\}\[", "PruningError"),
        (numpy_alone, "bf16", 5, "unsupported ScalarType BFloat16", r"weight\.float\(\)"),
        (crashes, "indivisible", 5, "KeyError", r"check_pattern\(pattern\)"),
        (
            gives_up,
            "fp32",
            5,
            "failed with PruningError: model.*too hard",
            "InputError",
        ),
        (
            says_nothing_where,
            "nan-weight",
            5,
            r"not name the module \(model\.layers\.1\.\.\.\)",
            "dotted",
        ),
        (nan_to_zero, "nan-weight", 5, r"one weight is NaN\): prune\(\) raised no error", "require_finite"),
        (nan_to_zero, "infinite-activation", 5, r"prune\(\) raised no error", "require_finite"),
        (swallows, "interrupted", 5, "was swallowed", "Do not catch it"),
        (tells_nobody, "fp32", 0, "on_layer was never called", "progress bars"),
        (tells_nobody, "interrupted", 0, "on_layer was never called", "progress bars"),
        (rounds_the_pattern, "indivisible", 5, r"prune\(\) raised no InputError", "check_pattern"),
        (
            fails_late_on_m,
            "indivisible",
            5,
            "expected an InputError",
            "check_pattern",
        ),
        (
            names_no_module,
            "indivisible",
            5,
            "names no module whose inputs",
            "check_pattern",
        ),
        (makes_up_calibration, "no-calibration", 5, r"prune\(\) raised no InputError", "with_calibration"),
        (shuffles_tokens, "fp32", 4, "token ids were changed", "copy"),
        (one_sparsity_for_all, "uneven", 2, r"weights are 0, 38 should be", r"pattern\.for_module\(name\)"),
        (at_least_a_tenth, "sparsity-0", 2, "weights were removed|a wrong number of weights", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_breaks_in_one_situation_only_is_found(prune, situation, promise, seen, advice):
    found = outcome(misbehaving(prune), situation=situation)
    assert found.verdict is Verdict.BROKEN
    assert re.search(seen, found.reason), found.reason
    assert re.search(advice, found.broken.advice), found.broken.advice
    assert found.broken.promise == promise


def test_a_method_that_knows_no_n_of_m_may_say_so():
    def unstructured_only(proper, model, pattern, calibration, on_layer):
        if isinstance(pattern, SemiStructured):
            raise InputError(f"method 'mine': pattern {pattern} cannot be done, give a sparsity")
        return proper(model)

    method = misbehaving(unstructured_only)
    for pattern, situation in (("2:4", "fp32"), ("0.5", "indivisible")):
        found = outcome(method, pattern=pattern, situation=situation)
        assert found.verdict is Verdict.REFUSED
        assert found.refusal.endswith("cannot be done, give a sparsity")
    assert outcome(method).verdict is Verdict.KEPT


def test_only_linears_are_not_enough():
    """What many pruners do: every nn.Linear, so that Conv1D, experts and their like stay dense."""

    def only_linears(proper, model, pattern, calibration, on_layer):
        result = proper(model)
        linears = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        keep = {name: mask for name, mask in result.keep.items() if name in linears}
        return PruneResult(keep, result.layers, result.phases)

    assert outcome(misbehaving(only_linears)).verdict is Verdict.KEPT
    for family, missed in (
        ("gpt2", r"h\.0\.attn\.c_attn"),
        ("mixtral", r"gate_up_proj\[0\]: has no"),
    ):
        assert re.search(missed, outcome(misbehaving(only_linears), family).reason)
