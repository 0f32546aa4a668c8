"""Wanda ranks weights by themselves times the norms of what they read, row by row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.base import Placement
from methods.engine.statistics import InputNorms
from methods.errors import NonFiniteError
from methods.masks.pattern import parse_pattern
from methods.registry import build
from methods.scores.wanda import Wanda, wanda_keep, wanda_scores
from tests.methods import oracles
from tests.methods.tiny_models import make_calibration, make_model

QUARTERS = st.integers(-6, 6).map(lambda n: n / 4)


@st.composite
def layers_with_ties(draw, m=1):
    """A weight and one sample of two tokens; every norm and every score is exact in fp32.

    The tokens are 3 k and 4 k, so the norm is 5 k.
    """
    columns = m * draw(st.integers(1, 4))
    weight = draw(hnp.arrays(np.float32, (draw(st.integers(1, 5)), columns), elements=QUARTERS))
    sizes = draw(hnp.arrays(np.float32, columns, elements=st.integers(0, 3).map(float)))
    return weight, np.stack([3 * sizes, 4 * sizes])


def squared_norms(sample: np.ndarray) -> torch.Tensor:
    norms = InputNorms(sample.shape[1], torch.device("cpu"))
    norms.add(torch.from_numpy(sample))
    return norms.value


@settings(max_examples=200)
@given(layers_with_ties(), st.sampled_from(["0", "0.29", "0.5", "0.7", "0.9"]))
def test_each_row_loses_its_lowest_and_of_equals_the_first(layer, pattern):
    weight, sample = layer
    scores = wanda_scores(torch.from_numpy(weight), squared_norms(sample))
    keep = wanda_keep(scores, parse_pattern(pattern))
    assert np.array_equal(keep.numpy(), oracles.wanda(weight, [sample], pattern))


@settings(max_examples=200)
@given(layers_with_ties(m=8), st.sampled_from(["2:4", "1:4", "4:8", "3:8"]))
def test_each_group_of_m_loses_its_lowest_and_of_equals_the_first(layer, pattern):
    weight, sample = layer
    scores = wanda_scores(torch.from_numpy(weight), squared_norms(sample))
    keep = wanda_keep(scores, parse_pattern(pattern))
    assert np.array_equal(keep.numpy(), oracles.wanda(weight, [sample], pattern))


def test_a_score_is_the_weight_times_the_norm_of_its_input():
    scores = wanda_scores(torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([25.0, 4.0, 0.0]))
    assert scores.tolist() == [[5.0, 4.0, 0.0]]


def test_a_small_weight_that_reads_much_outlives_a_large_one_that_reads_little():
    scores = wanda_scores(torch.tensor([[0.1, 5.0]]), torch.tensor([1e6, 1.0]))
    keep = wanda_keep(scores, parse_pattern("0.5"))
    assert keep.tolist() == [[True, False]]


@pytest.mark.parametrize("pattern", ["0.5", "0.7", "2:4"])
@pytest.mark.parametrize("family", ["llama", "opt", "opt-post-norm"])
def test_a_whole_model_is_pruned_as_the_oracle_prunes_it(family, pattern):
    model, plain = make_model(family).eval(), make_model(family).eval()
    calibration = make_calibration()
    result = Wanda().prune(model, parse_pattern(pattern), calibration, placement=Placement(2))

    def decide(name, weight, samples):
        return oracles.wanda(weight, samples, pattern), weight

    keep = oracles.prune_layers(plain, calibration.input_ids, decide)
    assert set(result.keep) == {f"{name}.weight" for name in keep}
    differing = sum(int((result.keep[f"{n}.weight"].unpack().numpy() != keep[n]).sum()) for n in keep)
    assert differing <= 1e-4 * sum(mask.size for mask in keep.values())


def test_inputs_that_were_never_active_lose_their_weights_first():
    model = make_model("opt")
    first = model.model.decoder.layers[0]
    first.fc1.weight.data[:50] = 0
    first.fc1.bias.data[:50] = -1
    result = Wanda().prune(model, parse_pattern("0.5"), make_calibration())
    keep = result.keep["model.decoder.layers.0.fc2.weight"].unpack()
    assert not keep[:, :50].any()
    reports = {report.module: report for report in result.layers}
    assert reports["model.decoder.layers.0.fc2"].warnings == (
        "50 inputs were never active; their weights rank lowest",
    )
    assert reports["model.decoder.layers.1.fc2"].warnings == ()


def test_scores_that_overflow_are_an_error_that_names_the_module():
    model = make_model("llama")
    model.model.layers[1].self_attn.o_proj.weight.data[:] = 3e38
    model.model.layers[1].self_attn.v_proj.weight.data *= 1e4
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.self_attn\.o_proj: its Wanda scores"):
        Wanda().prune(model, parse_pattern("0.5"), make_calibration())


def test_reports_tell_what_was_removed_and_what_it_did_to_the_block():
    told = []
    result = build("wanda").prune(
        make_model("llama"), parse_pattern("0.5"), make_calibration(), on_layer=told.append
    )
    assert tuple(told) == result.layers
    assert {report.block for report in told} == {"attention", "mlp"}
    assert all(report.sparsity == 0.5 and report.swaps is None for report in told)
    assert all(0 < report.error_after < 1 for report in told)
    unpruned = build("wanda").prune(make_model("llama"), parse_pattern("0"), make_calibration())
    assert all(report.error_after == 0 for report in unpruned.layers)
