"""Compares each method with its floor and with a plain implementation."""

from functools import partial

import pytest

from benchmarks import plain_methods
from benchmarks.floor import floors, mean_floors
from benchmarks.machine import measure
from benchmarks.sizes import workload
from benchmarks.timing import restoring
from benchmarks.work import work_of
from methods.masks.pattern import parse_pattern
from methods.registry import build, settings_of

LEAST_AGREEMENT = 0.999
"""Least share of equal mask bits in the first layer: sums are formed in another order, so a weight next to
the threshold may be kept or pruned.
"""
LATER_LAYERS_AGREEMENT = 0.9
"""The same for later layers: the reconstruction of the first layer carries each such difference on to them.
"""


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
@pytest.mark.parametrize("name", list(plain_methods.METHODS))
def test_prune(benchmark, judge, model, calibration, name, pattern):
    restore, method, results = restoring(model), build(name), []
    load = workload(model, calibration.n_samples, calibration.seqlen)
    work = work_of(name, settings_of(method), load)

    def measured():
        return floors(work, load, measure(model, load.n_samples, load.seqlen))

    before = measured()
    benchmark.pedantic(
        lambda: results.append(method.prune(model, parse_pattern(pattern), calibration)),
        setup=restore,
        rounds=2,
        warmup_rounds=1,
    )
    restore()
    found = mean_floors(before, measured())
    masks = {}
    plainly = partial(
        plain_methods.METHODS[name], model, plain_methods.read_pattern(pattern), calibration.input_ids
    )
    judge.compare(
        f"{name} {pattern}",
        found.usual.seconds,
        lambda: masks.update(plainly()),
        strict_seconds=found.strict.seconds,
        before_plain=restore,
    )
    restore()
    ours = results[-1].keep
    assert ours.keys() == masks.keys()
    for index, least in enumerate((LEAST_AGREEMENT, LATER_LAYERS_AGREEMENT)):
        of_layer = {key: mask for key, mask in masks.items() if key.startswith(f"model.layers.{index}.")}
        same = sum(int((ours[key].unpack() == mask).sum()) for key, mask in of_layer.items())
        assert same >= least * sum(mask.numel() for mask in of_layer.values())
