"""Every built-in method keeps its promises: on every family, with every pattern, on every hard input.

By default the part that covers all pairs, each recipe on a sixth of the families; the slow tests run every
recipe, and so every pair of steps, on every family; --whole-contract runs everything.
"""

import pytest
import torch

from methods.base import Placement
from methods.conformance import FAMILIES, Verdict, covering, covering_hard, examine, whole, whole_hard
from methods.conformance.variants import built_in_variants, recipe_variants
from methods.contract import ModelState, check_contract
from methods.errors import InputError, NonFiniteError
from methods.masks.pattern import parse_pattern
from methods.registry import build, names, origin
from tests.contract_table import note
from tests.methods.tiny_models import make_calibration, make_model

VARIANTS = {variant.label: variant for variant in (*built_in_variants(), *recipe_variants())}


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        everything = metafunc.config.getoption("whole_contract")
        parts = (whole, whole_hard) if everything else (covering, covering_hard)
        families, recipes = list(FAMILIES.values()), recipe_variants()
        cases = [case for part in parts for case in part(built_in_variants(), families)]
        if everything:
            cases += [*whole(recipes, families), *whole_hard(recipes, families)]
        else:
            cases += [*covering(recipes, families, every=6), *covering_hard(recipes, families)]
        named = {case.name: case for case in cases}
        later = [case for case in covering(recipes, families) if case.name not in named]
        slow = [pytest.param(case, id=case.name, marks=pytest.mark.slow) for case in later]
        metafunc.parametrize("case", [pytest.param(case, id=case.name) for case in cases] + slow)


def test_promises_are_kept(case, request):
    outcome = examine(case)
    note(request.node, case, outcome)
    able = VARIANTS[case.label].can(case.pattern)
    assert outcome.verdict is (Verdict.KEPT if able else Verdict.REFUSED), outcome.reason


def test_every_built_in_method_has_a_variant():
    built_in = {name for name in names() if origin(name) == "built-in"}
    assert {variant.method.name for variant in VARIANTS.values()} == built_in


@pytest.mark.parametrize("granularity", ["input", "layer", "block"])
def test_n_of_m_is_rebuilt_by_rows_only(granularity):
    method = build("llm-barber", {"granularity": granularity})
    with pytest.raises(InputError, match="2:4 needs granularity 'output'"):
        method.prune(make_model("llama"), parse_pattern("2:4"), make_calibration())


MOVED_BY_ROUNDING = {"alps": 0.02, "recipe": 0.005}
"""Share of mask entries. What chooses or swaps again and again carries a tie that rounding broke further: 0.9
and 0.12 % were seen. ALPS's penalty steps are cliffs (docs/decisions/0021)."""


@pytest.mark.parametrize("name", names())
def test_batching_changes_rounding_at_most(name):
    one, five = (
        build(name).prune(
            make_model("opt"), parse_pattern("0.5"), make_calibration(), placement=Placement(size)
        )
        for size in (1, 5)
    )
    differing = sum(int((one.keep[k].unpack() ^ five.keep[k].unpack()).sum()) for k in one.keep)
    assert differing <= MOVED_BY_ROUNDING.get(name, 0.001) * sum(mask.numel for mask in one.keep.values())


@pytest.mark.parametrize("name", names())
def test_what_is_not_finite_has_an_error_of_its_own(name):
    model = make_model("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp"):
        build(name).prune(model, parse_pattern("0.5"), make_calibration())


def test_dead_inputs_are_pruned_and_reported():
    model = make_model("opt")
    fc1 = model.model.decoder.layers[0].fc1
    fc1.weight.data[:40] = 0
    fc1.bias.data[:40] = -1
    for name in ("wanda", "sparsegpt"):
        report = next(
            r
            for r in build(name).prune(model, parse_pattern("0.5"), make_calibration()).layers
            if r.module.endswith("layers.0.fc2")
        )
        assert "40 inputs were never active" in report.warnings[0]


@pytest.mark.parametrize("name", [name for name in names() if name != "magnitude"])
def test_an_expert_without_tokens_is_reported(name):
    result = build(name).prune(make_model("qwen3-moe"), parse_pattern("0.5"), make_calibration())
    starved = [report for report in result.layers if report.module.endswith("experts.down_proj[4]")]
    assert [report.n_tokens for report in starved] == [0, 0]
    assert all("no calibration token" in report.warnings[0] for report in starved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", names())
def test_half_precision_reaches_the_same_sparsity(name, dtype):
    result = build(name).prune(make_model("llama", dtype), parse_pattern("0.5"), make_calibration())
    assert result.sparsity == pytest.approx(0.5, abs=0.01)


def test_fp16_gradients_do_not_flush_to_zero():
    model = make_model("llama", torch.float16)
    for parameter in model.model.layers.parameters():
        if parameter.ndim == 2:
            parameter.data *= 0.1
    method = build("llm-barber", {"rebuild_ratio": 1.0, "granularity": "layer"})
    swaps = [report.swaps for report in method.prune(model, parse_pattern("0.5"), make_calibration()).layers]
    assert all(n > 0 for n in swaps)


def test_a_model_in_training_mode_comes_back_in_training_mode():
    model = make_model("opt").train()
    before = ModelState.of(model)
    method = build("llm-barber", {"rebuild_ratio": 0.2})
    result = method.prune(model, parse_pattern("0.5"), make_calibration())
    check_contract(method, parse_pattern("0.5"), before, model, result)
    assert model.training
