"""Recipes are read, refused and run as they are written."""

from dataclasses import dataclass, replace
from itertools import permutations, product
from weakref import WeakSet

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.base import Placement, PruneResult
from methods.conformance.variants import recipe_variants
from methods.contract import ModelState, check_contract
from methods.engine.layerwise import Score
from methods.engine.statistics import GramMatrix, InputNorms, InputStatistics
from methods.engine.steps import Update
from methods.errors import ContractError, InputError
from methods.llm_barber import LLMBarber
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import parse_pattern
from methods.recipe import Recipe, parse_recipe, written
from methods.registry import allocations, build, steps
from methods.structure.decoder import read_decoder
from methods.updates.refit import refit
from methods.updates.scaled_gram import ScaledGram
from tests.methods.tiny_models import make_calibration, make_model

SCORES = [name for name in steps.names() if issubclass(steps.class_of(name), Score)]
UPDATES = [name for name in steps.names() if issubclass(steps.class_of(name), Update)]
REFINEMENTS = [name for name in steps.names() if name not in (*SCORES, *UPDATES)]


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("wanda|swaps|refit", "wanda | swaps | refit"),
        ("  wanda ( ) | refit( steps = 20 ) ", "wanda | refit(steps=20)"),
        ("wanda | refit(steps=10)", "wanda | refit"),
        ("wanda | refit(damping=1e-3, steps=5)", "wanda | refit(steps=5, damping=0.001)"),
        ("wanda | dsnot(blocks=all, same_sign=true)", "wanda | dsnot(blocks=all, same_sign=true)"),
        ('ria(group="output") | admm-update', "ria(group=output) | admm-update"),
        ("alphapruning | wanda | refit", "alphapruning | wanda | refit"),
        ("owl(max_deviation=0.1) | sparsegpt", "owl(max_deviation=0.1) | sparsegpt"),
    ],
)
def test_a_recipe_is_normalized(text, normalized):
    parsed = parse_recipe(text)
    assert str(parsed) == normalized
    assert str(parse_recipe(normalized)) == normalized


@given(
    st.sampled_from(SCORES),
    st.permutations(REFINEMENTS).flatmap(lambda names: st.integers(0, 3).map(lambda n: names[:n])),
    st.sampled_from([None, *UPDATES]),
)
def test_any_score_goes_with_any_refinements_and_any_update(score, refinements, update):
    text = " | ".join([score, *refinements, *([update] if update else [])])
    parsed = parse_recipe(text)
    assert str(parsed) == text
    assert parsed.method == ("recipe" if " | " in text else score)


def test_a_score_alone_is_the_method_of_that_name():
    parsed = parse_recipe("sparsegpt(damping=0.1)")
    assert parsed.method == "sparsegpt"
    assert parsed.settings == {"damping": 0.1, "block_size": 128}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("wanda |", "nothing between two bars"),
        ("wanda || refit", "nothing between two bars"),
        ("wand | refit", "unknown step 'wand'; did you mean 'wanda'"),
        ("wanda | refits", "unknown step 'refits'; did you mean 'refit'"),
        ("refit", "refit is an update and needs a mask"),
        ("swaps | refit", "swaps is a refinement and needs a mask"),
        ("wanda | sparsegpt", "sparsegpt chooses a mask of its own"),
        ("wanda | refit | swaps", "refit is an update and comes last; swaps would discard its weights"),
        ("wanda | refit | admm-update", "refit is an update and comes last"),
        ("wanda | owl", "the allocation 'owl' has to come first"),
        ("owl", "has no score"),
        ("owl | alphapruning | wanda", "the allocation 'alphapruning' has to come first"),
        ("uniform | wanda", "omit 'uniform'"),
        ("wanda | refit(step=3)", "step 'refit' has no setting 'step'; did you mean 'steps'"),
        ("wanda | refit(steps=0)", "steps must be at least 1"),
        ("wanda | refit(steps=many)", "setting steps cannot be 'many'; it takes a whole number"),
        ("wanda | refit(steps=1, steps=2)", "the setting steps twice"),
        ("wanda | refit(steps)", "'steps' where key=value belongs"),
        ("wanda | refit(steps=3", "cannot read"),
        ("wanda | refit)steps=3(", "cannot read"),
        ("wanda | " + "swaps | " * 200 + "refit", "is longer than"),
        ("recipe", "unknown step 'recipe'"),
        ("wanda | refit(steps=5\ndamping=0.5)", "settings are separated by commas"),
        ("wanda | refit(steps=5 # five)", "settings are separated by commas"),
        ("wanda | refit(steps=" + "[" * 900 + ")", "setting steps cannot be"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(text, reason):
    with pytest.raises(InputError) as refused:
        parse_recipe(text)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_allocation_is_not_the_method_s_own_setting():
    with pytest.raises(InputError, match="give the allocation 'owl' by --recipe or --allocation"):
        build("recipe", {"recipe": "owl | wanda | refit"})


def test_every_pair_of_steps_stands_in_a_recipe_that_the_contract_tries():
    met = set()
    for variant in recipe_variants():
        assert isinstance(variant.method, Recipe)
        names = [step.name for step in variant.method.steps]
        met |= {(names[i], later) for i in range(len(names)) for later in names[i + 1 :]}
    due = {
        *product(SCORES, (*REFINEMENTS, *UPDATES)),
        *permutations(REFINEMENTS, 2),
        *product(REFINEMENTS, UPDATES),
    }
    # Three refinements have six orders; those that the recipes leave out are tried on one family below.
    assert due - met <= set(permutations(REFINEMENTS, 2))


@pytest.mark.parametrize("order", list(permutations(REFINEMENTS)), ids=" | ".join)
def test_refinements_go_in_any_order(order):
    model, pattern = make_model("llama"), parse_pattern("0.5")
    method = build("recipe", {"recipe": " | ".join(["wanda", *order, "refit"])})
    before = ModelState.of(model)
    result = method.prune(model, pattern, make_calibration())
    check_contract(method, pattern, before, model, result)
    assert result.initial is not None
    assert result.initial.mask_digest != result.mask_digest


def masks_of(method, family="llama", pattern="0.5", **settings):
    model = make_model(family)
    result = build(method, settings).prune(model, parse_pattern(pattern), make_calibration())
    return result, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", SCORES)
def test_a_recipe_of_one_score_is_that_method_to_the_bit(name):
    alone, weights = masks_of(name)
    recipe, same = masks_of("recipe", recipe=name)
    assert recipe.mask_digest == alone.mask_digest
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert recipe.initial is None


def test_the_contract_holds_the_score_s_mask_to_the_score_s_own_groups():
    model, pattern, method = (
        make_model("llama"),
        parse_pattern("0.5"),
        build("recipe", {"recipe": "wanda | swaps"}),
    )
    before = ModelState.of(model)
    result = method.prune(model, pattern, make_calibration())
    name, mask = next(iter(result.initial.keep.items()))
    keep = mask.unpack()
    keep[0, keep[0].nonzero()[0]] = False
    keep[1, (~keep[1]).nonzero()[0]] = True
    moved = PruneResult({**result.initial.keep, name: KeepMask.pack(keep)}, (), {})
    with pytest.raises(ContractError, match="2 of 64 comparison groups lost a wrong number of weights"):
        check_contract(method, pattern, before, model, replace(result, initial=moved))


@pytest.mark.parametrize("recipe", ["sparsegpt | dsnot", "alps | dsnot(blocks=all)"])
def test_after_a_refinement_survivors_are_dense(recipe):
    dense = dict(make_model("llama").named_parameters())
    result, pruned = masks_of("recipe", recipe=recipe)
    for name, mask in result.keep.items():
        keep = mask.unpack()
        assert torch.equal(pruned[name][keep], dense[name][keep])


def test_a_setting_that_needs_quotes_keeps_them():
    @dataclass(frozen=True)
    class Named(Update):
        tag: str = "x"
        name = "named"
        version = 1

        def update(self, problem, found):
            return found

    assert written(Named("0.5")) == 'named(tag="0.5")'
    assert written(Named("a,b")) == 'named(tag="a,b")'
    assert written(Named("a-b")) == "named(tag=a-b)"


def test_a_pattern_that_a_step_cannot_do_is_refused_before_anything_runs():
    recipe = build("recipe", {"recipe": "wanda | llm-barber(granularity=layer)"})
    with pytest.raises(InputError, match="2:4 needs granularity 'output'"):
        recipe.prune(make_model("llama"), parse_pattern("2:4"), make_calibration())


def test_a_refit_of_many_steps_stays_where_it_arrived():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(20, 64, generator=generator) * torch.logspace(-3, 2, 64)
    weight = torch.randn(8, 64, generator=generator)
    keep = torch.rand(8, 64, generator=generator) < 0.5
    scaled = ScaledGram.damped_first(x.T @ x, 0.01)

    def error(pruned):
        return float((x @ (weight - pruned).T).square().sum())

    few, many = (refit(weight, keep, scaled, steps) for steps in (50, 2000))
    assert torch.isfinite(many).all()
    assert error(many) <= 1.05 * error(few)


def test_without_inputs_to_read_no_calibration_is_asked_for():
    assert not build("recipe", {"recipe": "magnitude"}).needs_calibration
    assert build("recipe", {"recipe": "magnitude | llm-barber"}).needs_calibration
    assert build("recipe", {"recipe": "magnitude | refit"}).needs_calibration
    with pytest.raises(InputError, match="needs calibration data"):
        build("recipe", {"recipe": "magnitude | refit"}).prune(make_model("llama"), parse_pattern("0.5"))


def test_from_magnitude_one_pass_rebuilds_as_two_do():
    """Magnitude's mask is the same on any stream, so both forms start from one mask throughout."""
    settings = {"granularity": "output", "rebuild_ratio": 0.3}
    model, pattern, calibration = make_model("llama"), parse_pattern("0.5"), make_calibration()
    two = LLMBarber(initial="magnitude", **settings).prune(model, pattern, calibration)
    one, _ = masks_of("recipe", recipe="magnitude | llm-barber(rebuild_ratio=0.3)")
    assert one.mask_digest == two.mask_digest
    for ours, theirs in zip(one.layers, two.layers, strict=True):
        assert (ours.module, ours.swaps, ours.n_pruned) == (theirs.module, theirs.swaps, theirs.n_pruned)
        assert ours.error_before == pytest.approx(theirs.error_before)
        assert ours.error_after == pytest.approx(theirs.error_after)


def test_dsnot_in_one_pass_from_magnitude_is_the_two_pass_form():
    two, _ = masks_of("dsnot", initial="magnitude", blocks="all")
    one, _ = masks_of("recipe", recipe="magnitude | dsnot(blocks=all)")
    assert one.mask_digest == two.mask_digest


def output_error(result) -> float:
    return sum(report.error_after for report in result.layers) / len(result.layers)


@pytest.mark.parametrize("pattern", ["0.5", "0.7", "2:4"])
def test_swaps_and_a_refit_make_the_output_error_smaller(pattern):
    alone, _ = masks_of("wanda", pattern=pattern)
    swapped, _ = masks_of("recipe", pattern=pattern, recipe="wanda | swaps")
    refitted, _ = masks_of("recipe", pattern=pattern, recipe="wanda | refit")
    both, _ = masks_of("recipe", pattern=pattern, recipe="wanda | swaps | refit")
    assert output_error(both) < output_error(swapped) < output_error(alone)
    assert output_error(refitted) < output_error(alone)


def test_a_gram_matrix_has_the_norms_too():
    [target] = [t for _, _, t in read_decoder(make_model("llama")).targets()][:1]
    both = InputStatistics([InputNorms, GramMatrix], target)
    assert GramMatrix in both
    assert InputNorms in both
    alone = InputStatistics([InputNorms], target)
    x = torch.randn(9, target.n_inputs, generator=torch.Generator().manual_seed(1))
    both.add(x)
    alone.add(x)
    assert torch.equal(both[InputNorms].value, both[GramMatrix].value.diagonal())
    torch.testing.assert_close(both[InputNorms].value, alone[InputNorms].value)


def test_a_refit_in_float64_comes_to_the_least_squares_solution_row_by_row():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(6, 12, dtype=torch.float64, generator=generator)
    x = torch.randn(50, 12, dtype=torch.float64, generator=generator) * torch.logspace(-1, 1, 12)
    keep = torch.rand(6, 12, generator=generator) < 0.5
    gram = x.T @ x
    ours = refit(weight, keep, ScaledGram.damped_first(gram, 0.0), steps=40)
    for row in range(6):
        here = keep[row]
        expected = torch.linalg.lstsq(x[:, here], x @ weight[row]).solution
        torch.testing.assert_close(ours[row, here], expected, rtol=1e-6, atol=1e-8)
        assert not ours[row, ~here].any()


@pytest.mark.parametrize("weights", ["resident", "onload"])
@pytest.mark.parametrize("recipe", ["wanda | swaps | refit", "magnitude | llm-barber | admm-update"])
def test_onloaded_layers_give_the_same_bits(recipe, weights):
    digests = []
    for placement in (Placement(batch_size=2), Placement(batch_size=2, weights=weights)):
        model = make_model("llama")
        result = build("recipe", {"recipe": recipe}).prune(
            model, parse_pattern("0.5"), make_calibration(), placement=placement
        )
        digests.append((result.mask_digest, [p.sum().item() for p in model.parameters()]))
    assert digests[0] == digests[1]


def test_an_allocation_of_a_recipe_is_built_with_its_settings():
    parsed = parse_recipe("alphapruning(max_deviation=0.1) | wanda | refit")
    assert parsed.allocation == allocations.build("alphapruning", {"max_deviation": 0.1})
    assert parsed.settings == {"recipe": "wanda | refit"}


@pytest.mark.parametrize("recipe", ["alps", "wanda | llm-barber(rebuild_ratio=0.3) | refit"])
def test_factors_are_made_once_for_all_readers_of_an_input_and_freed_after_the_last(monkeypatch, recipe):
    made, most = 0, 0
    held: WeakSet[InputStatistics] = WeakSet()  # those of experts that no token reached end by themselves
    shared, drop = InputStatistics.shared, InputStatistics.drop_shared

    def counted(self, key, make):
        nonlocal made, most

        def noted():
            nonlocal made
            made += 1
            return make()

        found = shared(self, key, noted)
        held.add(self)
        most = max(most, len(held))
        return found

    def dropped(self):
        held.discard(self)
        drop(self)

    monkeypatch.setattr(InputStatistics, "shared", counted)
    monkeypatch.setattr(InputStatistics, "drop_shared", dropped)
    model = make_model("qwen3-moe")
    Recipe(recipe).prune(model, parse_pattern("0.5"), make_calibration())
    layers = read_decoder(model).layers
    # q, k and v read one input; o, and of each expert gate and up (in one matrix) and down, one each.
    n_inputs = sum(len(layer.targets) - 2 for layer in layers)
    assert made == n_inputs and not held
    # Targets of the attention come one after the other: while o is solved nothing of q, k and v is kept.
    assert most == 1
