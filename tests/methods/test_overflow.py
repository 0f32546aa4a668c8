"""Numbers that overflow: a report leaves them out and says so; a choice is never made by them."""

from dataclasses import replace
from math import inf, isnan

import pytest
import torch

from methods.allocations.owl import OWL
from methods.base import CalibrationSet, LayerReport, Placement
from methods.contract import ModelState, check_contract
from methods.engine.hidden_states import relative_error
from methods.errors import NonFiniteError, StructureError
from methods.initial import InitialMask
from methods.masks.pattern import parse_pattern
from methods.registry import build, names
from methods.scores.ria import ria_scores
from methods.structure.decoder import read_decoder
from tests.methods.tiny_models import make_calibration, make_model

REPORT = LayerReport("m", 0, "mlp", (2, 2), 2, error_before=0.5, error_after=0.25, damping=0.01)
NUMBERS = {
    "error_before": "its output error under",
    "error_after": "its output error is",
    "damping": "damping",
}

PRUNED_ALL_THE_SAME = [
    ("wanda", {}),
    ("ria", {}),
    ("ria", {"group": "output"}),
    ("dsnot", {}),
    ("dsnot", {"initial": "magnitude", "blocks": "all"}),
    ("llm-barber", {"score": "weight"}),
    ("llm-barber", {"score": "weight", "initial": "magnitude", "granularity": "block"}),
    ("llm-barber", {"score": "weight", "initial": "dsnot", "granularity": "input"}),
]
GRANULARITIES = ["layer", "output", "input", "block"]
BY_GRADIENTS = [("llm-barber", {"granularity": granularity}) for granularity in GRANULARITIES]
NO_CHOICE = [*BY_GRADIENTS, ("llm-barber", {"initial": "sparsegpt"}), ("sparsegpt", {})]


def enlarged(factor=1e15, dtype=torch.float32):
    """A model whose projections are multiplied: its outputs are finite, their squares are not."""
    model = make_model("llama", dtype)
    for _, _, target in read_decoder(model).targets():
        target.weight.mul_(factor)
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_report_leaves_out_what_is_not_finite_and_says_so(name, value):
    report = replace(REPORT, warnings=("before",), **{name: value})
    assert getattr(report, name) is None
    assert report.warnings[0] == "before"
    assert len(report.warnings) == 2
    assert NUMBERS[name] in report.warnings[1]
    assert "not finite" in report.warnings[1]
    assert replace(report) == report
    assert {other: getattr(report, other) for other in NUMBERS if other != name} == {
        other: getattr(REPORT, other) for other in NUMBERS if other != name
    }


def test_what_is_finite_or_absent_is_reported_as_it_is():
    assert REPORT.warnings == ()
    assert LayerReport("m", 0, "mlp", (2, 2), 2).warnings == ()


def test_an_error_beside_outputs_that_overflow_is_not_called_zero():
    """2e19 squared leaves fp32 and 1e18, by which the outputs differ, does not."""
    assert isnan(relative_error(torch.tensor([2.0e19, 1.0]), torch.tensor([2.1e19, 1.0])))
    assert isnan(relative_error(torch.full((2,), float("inf")), torch.full((2,), float("inf"))))
    assert relative_error(torch.tensor([3e19]), torch.tensor([1.0])) == inf


def test_an_error_beside_outputs_that_are_all_zero_is_left_out_and_said():
    error = relative_error(torch.ones(2), torch.zeros(2))
    report = replace(REPORT, error_after=error)
    assert report.error_after is None
    assert "the dense ones are all 0" in report.warnings[0]
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0


def test_a_method_that_starts_from_another_mask_judges_the_outputs_anew():
    target = next(target for _, _, target in read_decoder(make_model("llama")).targets())
    first = replace(REPORT, module=target.name, error_after=float("nan"), damping=float("nan"))
    result = build("magnitude").prune(make_model("llama"), parse_pattern("0.5"))
    taken = InitialMask(replace(result, layers=(first,)))
    assert taken.warnings(target) == taken.report(target).warnings == first.warnings[:0] + first.warnings[1:]
    assert "damping" in taken.warnings(target)[0]


@pytest.mark.parametrize("weights", ["resident", "onload"])
@pytest.mark.parametrize(("method", "settings"), PRUNED_ALL_THE_SAME)
def test_outputs_whose_squares_overflow_leave_the_error_out(method, settings, weights):
    model, pattern = enlarged(), parse_pattern("0.5")
    before = ModelState.of(model)
    built = build(method, settings)
    placement = Placement(weights=weights)
    result = built.prune(model, pattern, make_calibration(), placement=placement)
    check_contract(built, pattern, before, model, result)
    attention = [report for report in result.layers if (report.layer, report.block) == (0, "attention")]
    assert len(attention) == 4
    for report in attention:
        assert report.error_before is None
        assert report.error_after is None
        n_said = sum("output error is not finite" in warning for warning in report.warnings)
        assert n_said == 1
        rebuilt = method == "llm-barber"
        assert any("under the initial mask" in warning for warning in report.warnings) == rebuilt
    assert result.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("weights", ["resident", "onload"])
@pytest.mark.parametrize(("method", "settings"), NO_CHOICE)
def test_scores_that_overflow_choose_no_mask(method, settings, weights):
    with pytest.raises(NonFiniteError, match=r"^model\.layers\.0\.self_attn\.[a-z]+_proj: .*NaN or infinite"):
        build(method, settings).prune(
            enlarged(), parse_pattern("0.5"), make_calibration(), placement=Placement(weights=weights)
        )


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_sparsegpt_does_not_choose_among_infinite_scores(pattern):
    with pytest.raises(NonFiniteError, match=r"o_proj: its SparseGPT scores hold NaN or infinite"):
        build("sparsegpt").prune(enlarged(), parse_pattern(pattern), make_calibration())


def test_a_hessian_that_overflows_is_not_called_singular():
    """Sums of squares that fit into fp32 and do not once they are doubled: one sample."""
    model = make_model("llama")
    norm = model.model.layers[0].input_layernorm.weight
    norm.data.zero_()
    norm.data[3] = 1.5e19
    calibration = CalibrationSet(torch.full((1, 1), 5), "one token")
    x = model.model.embed_tokens.weight[5].detach()
    norm.data[3] /= float(x[3].abs() * torch.rsqrt(x.square().mean()))
    with pytest.raises(NonFiniteError, match="q_proj: the diagonal of its Hessian"):
        build("sparsegpt").prune(model, parse_pattern("0.5"), calibration)


def test_a_reconstruction_that_overflows_the_type_of_the_weights_is_an_error_that_names_it(monkeypatch):
    choose = build("sparsegpt").choose

    def enlarging(self, problem):
        solution = choose(problem)
        return replace(solution, weight=solution.weight * 1e8)

    monkeypatch.setattr("methods.scores.sparsegpt.SparseGPT.choose", enlarging)
    with pytest.raises(NonFiniteError, match=r"q_proj: its new weights in torch\.float16"):
        build("sparsegpt").prune(make_model("llama", torch.float16), parse_pattern("0.5"), make_calibration())


def test_ria_shares_of_a_sum_that_overflows_are_no_scores():
    weight = torch.tensor([[3e38, 3e38], [1.0, 2.0]])
    scores = ria_scores(weight, torch.ones(2), 0.5)
    assert scores[0].isnan().all()
    model = make_model("llama")
    model.model.layers[0].self_attn.v_proj.weight.data[1] = 3e38
    with pytest.raises(NonFiniteError, match="v_proj: its RIA scores"):
        build("ria").prune(model, parse_pattern("0.5"), make_calibration())


@pytest.mark.parametrize("name", [name for name in names() if name != "magnitude"])
@pytest.mark.parametrize("factor", [1e3, 3e4])
def test_activations_that_overflow_float16_are_an_error_that_names_the_module(name, factor):
    with pytest.raises(NonFiniteError, match=r"^model\.layers\.\d"):
        build(name).prune(enlarged(factor, torch.float16), parse_pattern("0.5"), make_calibration())


def test_magnitude_looks_at_no_activation():
    result = build("magnitude").prune(enlarged(1e3, torch.float16), parse_pattern("0.5"))
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    assert not any(report.warnings for report in result.layers)


def test_owl_counts_outliers_of_finite_scores_or_names_the_module():
    given = OWL().allocate(enlarged(), parse_pattern("0.5"), make_calibration())
    assert len(given.of_module) == len(list(read_decoder(enlarged()).targets()))
    with pytest.raises(NonFiniteError, match=r"model\.layers\.0\.self_attn\.o_proj: the activations"):
        OWL().allocate(enlarged(1e21), parse_pattern("0.5"), make_calibration())


def test_a_block_that_differs_by_itself_is_found_out_however_large_its_outputs(monkeypatch):
    model = enlarged()
    run = "methods.structure.decoder.Block.run"
    from methods.structure.decoder import Block

    original = Block.run
    monkeypatch.setattr(run, lambda *given: 2 * original(*given))
    with pytest.raises(StructureError, match="its attention, run by itself, differs"):
        build("llm-barber", {"score": "weight"}).prune(model, parse_pattern("0.5"), make_calibration())
