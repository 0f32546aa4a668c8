"""`rebuild_ratio = "search"` goes as far on every block as its error falls, and no farther."""

import pytest
import torch

from methods.base import CalibrationSet, Placement
from methods.conformance.families import FAMILIES
from methods.contract import ModelState, check_contract
from methods.decoder import read_decoder
from methods.errors import InputError
from methods.pattern import parse_pattern
from methods.ratio_search import SEARCHED_RATIOS
from methods.registry import build
from methods.stream import relative_error


def calibration() -> CalibrationSet:
    generator = torch.Generator().manual_seed(3)
    return CalibrationSet(torch.randint(3, 97, (4, 24), generator=generator), "random", 3)


def prune(family: str, pattern: str, **settings: object):
    model = FAMILIES[family].build()
    before = ModelState.of(model)
    method, parsed = build("llm-barber", settings), parse_pattern(pattern)
    # All in one batch, so that the probe of the reports is the whole calibration set.
    result = method.prune(model, parsed, calibration(), placement=Placement(4))
    check_contract(method, parsed, before, model, result)
    return model, result


@pytest.mark.parametrize("settings", [{}, {"granularity": "layer"}, {"initial": "magnitude"}], ids=str)
@pytest.mark.parametrize("pattern", ["0.5", "0.9"])
@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "mixtral"])
def test_no_block_is_worse_after_than_before(family, pattern, settings):
    _, result = prune(family, pattern, rebuild_ratio="search", **settings)
    for report in result.layers:
        assert report.rebuild_ratio in SEARCHED_RATIOS
        assert report.error_after <= report.error_before * (1 + 1e-4)
    assert any(report.error_after < report.error_before * 0.999 for report in result.layers)


def test_of_the_first_block_it_takes_the_best_of_all_ratios_tried_one_by_one():
    def first_block_error(**settings):
        pruned, result = prune("llama", "0.7", granularity="layer", **settings)
        dense = FAMILIES["llama"].build()
        outputs = []
        for model in (pruned, dense):
            block = read_decoder(model).layers[0].blocks[0]
            hook = block.exit.register_forward_hook(lambda _, args, output: outputs.append(output[0]))
            with torch.no_grad():
                model(input_ids=calibration().input_ids)
            hook.remove()
        return relative_error(*outputs), result

    errors = {ratio: first_block_error(rebuild_ratio=ratio)[0] for ratio in SEARCHED_RATIOS}
    error, result = first_block_error(rebuild_ratio="search")
    best = min(errors, key=errors.__getitem__)
    assert result.layers[0].rebuild_ratio == best
    assert error == pytest.approx(errors[best])
    assert len(set(errors.values())) > 3


def test_n_of_m_and_reconstructions_are_searched_too():
    _, result = prune("llama", "2:4", rebuild_ratio="search")
    assert all(report.error_after <= report.error_before * (1 + 1e-4) for report in result.layers)
    settings = {"initial": "sparsegpt", "granularity": "layer", "keep_reconstruction": True}
    _, result = prune("llama", "0.7", rebuild_ratio="search", **settings)
    assert all(report.error_after <= report.error_before * (1 + 1e-4) for report in result.layers)
    assert result.phases["search"] > 0


def test_at_ratio_0_the_masks_are_the_initial_ones_and_the_report_says_so():
    _, result = prune("llama", "0.5", rebuild_ratio=0)
    assert result.mask_digest == result.initial.mask_digest
    assert {report.rebuild_ratio for report in result.layers} == {0}
    assert {report.swaps for report in result.layers} == {0}


def test_other_words_are_refused():
    with pytest.raises(
        InputError, match="rebuild_ratio cannot be 'auto'; it takes a finite number or 'search'"
    ):
        build("llm-barber", {"rebuild_ratio": "auto"})
