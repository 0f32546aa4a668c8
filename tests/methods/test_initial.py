"""Methods that start from a mask that is known go on exactly as if they had found it themselves."""

import pytest
import torch

from methods.base import Placement, PruneResult
from methods.initial import initial_prunes_from
from methods.masks.pattern import parse_pattern
from methods.placement.pruned_weights import pruned_weights, put_pruned_weights
from methods.registry import build
from tests.methods.tiny_models import make_calibration, make_model

PLACEMENTS = {"resident": Placement(batch_size=2), "onload": Placement(batch_size=2, weights="onload")}


class Remembered:
    """Prunes by each initial method once, and keeps what came of it in memory."""

    def __init__(self):
        self.kept = {}
        self.n_asked = 0

    def prune(self, method, model, pattern, calibration, placement, *, weights):
        self.n_asked += 1
        key = repr(method)
        if key not in self.kept:
            result = method.prune(model, pattern, calibration, placement=placement)
            self.kept[key] = result, dict(_by_name(model, placement))
            return result
        result, by_layer = self.kept[key]
        if weights:
            survivors = (lambda layer: by_layer[layer.name]) if method.reconstructs else None
            put_pruned_weights(model, placement, result, survivors)
        return PruneResult(result.keep, result.layers, {}, result.initial)


def _by_name(model, placement):
    return ((layer.name, weights) for layer, weights in pruned_weights(model, placement))


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize(
    "name, settings",
    [
        ("llm-barber", {"initial": "wanda", "rebuild_ratio": 0.2}),
        ("llm-barber", {"initial": "sparsegpt", "keep_reconstruction": True, "rebuild_ratio": 0.2}),
        ("llm-barber", {"initial": "sparsegpt", "granularity": "block"}),
        ("llm-barber", {"initial": "dsnot"}),
        ("dsnot", {"initial": "sparsegpt"}),
        ("dsnot", {"initial": "magnitude", "blocks": "all"}),
    ],
)
def test_a_known_initial_mask_changes_nothing(name, settings, family, placement):
    pattern, calibration = parse_pattern("0.5"), make_calibration()
    alone, known = [], Remembered()
    for _ in range(2):
        model = make_model(family)
        result = build(name, settings).prune(model, pattern, calibration, placement=placement)
        alone.append((result, model.state_dict()))
    assert alone[0][0].mask_digest == alone[1][0].mask_digest, "or nothing is shown below"
    for turn in range(2):
        model = make_model(family)
        with initial_prunes_from(known):
            result = build(name, settings).prune(model, pattern, calibration, placement=placement)
        expected, weights = alone[0]
        assert result.keep == expected.keep
        assert result.layers == expected.layers
        assert result.initial.keep == expected.initial.keep
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        # A known mask costs what it takes to look it up, which is nobody's phase.
        assert (result.initial.phases == {}) == (turn == 1)
    assert known.n_asked >= 2


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
def test_pruned_weights_come_back_to_the_bit(placement):
    pruned, dense = make_model("gpt2", torch.bfloat16), make_model("gpt2", torch.bfloat16)
    result = build("sparsegpt").prune(pruned, parse_pattern("2:4"), make_calibration(), placement=placement)
    kept = dict(_by_name(pruned, placement))
    put_pruned_weights(dense, placement, result, lambda layer: kept[layer.name])
    assert all(torch.equal(a, b) for a, b in zip(pruned.parameters(), dense.parameters(), strict=True))


def test_nothing_is_known_outside_the_body():
    known, model = Remembered(), make_model("llama")
    with initial_prunes_from(known):
        pass
    build("llm-barber").prune(model, parse_pattern("0.5"), make_calibration())
    assert known.n_asked == 0
