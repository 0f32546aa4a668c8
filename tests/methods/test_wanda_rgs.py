"""The regional gradient score against autograd, a sample at a time."""

import numpy as np
import pytest
import torch

from methods.base import CalibrationSet, Placement
from methods.engine.block_gradient import regional_gradients
from methods.engine.hidden_states import LayerStream, at_rest
from methods.errors import InputError
from methods.masks.pattern import parse_pattern
from methods.placement.layer_loading import residing
from methods.registry import build
from methods.scores.wanda_rgs import regional_scores
from methods.structure.decoder import read_decoder
from tests.methods import oracles
from tests.methods.tiny_models import make_calibration, make_model

FAMILIES = ("llama", "opt")


def layers_of(model):
    return model.model.decoder.layers if hasattr(model.model, "decoder") else model.model.layers


def plain_gradients(model, index: int, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """Linear -> mean over samples of the squared gradient of the norm of layer `index`'s output."""
    linears = {
        name: linear for block in oracles.plain_blocks(model)[index] for name, linear in block.linears.items()
    }
    totals = {name: np.zeros(linear.weight.shape) for name, linear in linears.items()}
    outputs = []

    def note(_, __, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hook = layers_of(model)[index].register_forward_hook(note)
    for sample in ids:
        for linear in linears.values():
            linear.weight.requires_grad_(True)
        model(input_ids=sample[None], use_cache=False)
        gradients = torch.autograd.grad(outputs.pop().norm(), [linear.weight for linear in linears.values()])
        for name, gradient in zip(linears, gradients, strict=True):
            totals[name] += gradient.double().numpy() ** 2
    hook.remove()
    return {name: total / len(ids) for name, total in totals.items()}


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_autograd(family, batch_size):
    model, calibration = make_model(family), make_calibration()
    decoder = read_decoder(model)
    with at_rest(model), residing(model, decoder, Placement(batch_size)) as residence:
        stream = LayerStream.of_calibration(model, decoder, calibration, residence)
        found = regional_gradients(stream, decoder.layers[0])
    expected = plain_gradients(model, 0, calibration.input_ids)
    assert found.keys() == expected.keys()
    for name, gradients in expected.items():
        scale = gradients.max()
        assert found[name].numpy() / scale == pytest.approx(gradients / scale, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_are_those_of_the_formula_layer_after_layer(family, pattern):
    model, plain, calibration = make_model(family), make_model(family), make_calibration()
    result = build("wanda-rgs", {"gradient_scale": 3.0}).prune(model, parse_pattern(pattern), calibration)
    differing = total = 0
    for index, blocks in enumerate(oracles.plain_blocks(plain)):
        linears = {name: linear for block in blocks for name, linear in block.linears.items()}
        gradients = plain_gradients(plain, index, calibration.input_ids)
        read = oracles.inputs_of(plain, linears, calibration.input_ids)
        for name, linear in linears.items():
            norms = np.sqrt(sum((x**2).sum(0) for x in read[name]) / len(read[name]))
            weight = linear.weight.detach().double().numpy()
            scores = (3.0 * np.sqrt(gradients[name]) + norms) * np.abs(weight)
            keep = keep_by_rows(scores, pattern)
            differing += int((keep != result.keep[f"{name}.weight"].unpack().numpy()).sum())
            total += keep.size
            linear.weight.data = torch.from_numpy(np.where(keep, weight, 0)).float()
    assert differing <= 0.0005 * total, "ties that rounding broke at most"


def keep_by_rows(scores: np.ndarray, pattern: str) -> np.ndarray:
    n_of_m = oracles.n_of_m(pattern)
    if n_of_m is not None:
        return oracles.keep_in_groups_of_m(scores, *n_of_m)
    k = oracles.share(scores.shape[1], pattern)
    return np.array([oracles.drop_lowest(list(row), k) for row in scores])


def test_without_gradients_it_is_wanda():
    wanda, regional = (
        build(name, settings).prune(make_model("llama"), parse_pattern("0.5"), make_calibration())
        for name, settings in (("wanda", {}), ("wanda-rgs", {"gradient_scale": 0.0}))
    )
    assert all(torch.equal(wanda.keep[name].unpack(), regional.keep[name].unpack()) for name in wanda.keep)


def test_a_score_by_hand():
    scores = regional_scores(
        torch.tensor([[1.0, -2.0]]), torch.tensor([9.0, 0.0]), torch.tensor([[4.0, 25.0]]), 10.0
    )
    assert scores.tolist() == [[(10 * 2 + 3) * 1.0, (10 * 5 + 0) * 2.0]]


def test_half_precision_does_not_flush_gradients_to_zero():
    model = make_model("llama", torch.float16)
    decoder = read_decoder(model)
    ids = make_calibration().input_ids
    with at_rest(model), residing(model, decoder, Placement(2)) as residence:
        stream = LayerStream.of_calibration(model, decoder, CalibrationSet(ids, "ids"), residence)
        found = regional_gradients(stream, decoder.layers[0])
    expected = plain_gradients(make_model("llama"), 0, ids)
    for name, gradients in expected.items():
        assert found[name].sum().item() == pytest.approx(gradients.sum(), rel=0.05)


def test_a_negative_scale_is_refused():
    with pytest.raises(InputError, match="gradient_scale must be at least 0"):
        build("wanda-rgs", {"gradient_scale": -1.0})
