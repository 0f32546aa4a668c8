"""The plain implementations that ours are timed against decide the same."""

import pytest
import torch

from benchmarks import plain_methods
from methods.masks.pattern import parse_pattern
from methods.registry import build
from tests.methods.tiny_models import make_calibration, make_model


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
@pytest.mark.parametrize("name", plain_methods.METHODS)
def test_masks_and_weights_are_those_of_ours(name, pattern):
    calibration = make_calibration(n_samples=8)
    ours, theirs = make_model("llama"), make_model("llama")
    keep = build(name).prune(ours, parse_pattern(pattern), calibration).keep
    masks = plain_methods.METHODS[name](theirs, plain_methods.read_pattern(pattern), calibration.input_ids)
    assert masks.keys() == keep.keys()
    for key, mask in masks.items():
        assert torch.equal(keep[key].unpack(), mask), key
        torch.testing.assert_close(
            ours.get_parameter(key), theirs.get_parameter(key), rtol=1e-3, atol=1e-5, msg=key
        )


def test_a_plain_rebuild_swaps():
    """The authors' ratio swaps next to nothing on so small a model; that it does is seen here."""
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(8, 32, generator=generator) > 0.5
    scores = torch.rand(8, 32, generator=generator)
    from benchmarks import plain
    from methods.refinements.barber_swaps import rebuild

    swapped = plain.rebuild(keep, scores, 0.5)
    assert not torch.equal(swapped, keep)
    assert torch.equal(swapped, rebuild(keep, scores, "output", 0.5))
