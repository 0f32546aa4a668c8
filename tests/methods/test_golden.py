"""All golden runs: agreement of masks, of what a rebuild swapped, and of reconstructed weights."""

import pytest

from methods.base import Placement
from methods.masks.pattern import parse_pattern
from methods.registry import build
from tests.methods.golden import GoldenRun, calibration, golden_runs, linears, load_model

RUNS = golden_runs()


def settings_of(run: GoldenRun) -> dict[str, object]:
    if run.method != "llm-barber":
        return {}
    return {
        "initial": run.initial,
        "granularity": run.granularity,
        "rebuild_ratio": run.rebuild_ratio,
        "keep_reconstruction": run.keep_reconstruction,
        "nm_guard": False,
    }


def test_there_are_fifty_golden_runs():
    assert len(RUNS) == 50


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_golden(run: GoldenRun, record_property, capsys):
    model = load_model(run.family)
    result = build(run.method, settings_of(run)).prune(
        model, parse_pattern(run.pattern), calibration(run.family), placement=Placement(batch_size=4)
    )
    ours = {name.removesuffix(".weight"): mask.unpack() for name, mask in result.keep.items()}
    official = run.keep()
    assert ours.keys() == official.keys()

    same = sum(int((ours[name] == official[name]).sum()) for name in ours)
    total = sum(mask.numel() for mask in ours.values())
    figures = [f"masks agree {same / total:.5%}"]
    assert same / total >= 0.999

    if run.method == "llm-barber":
        start = run.keep(run.initial_file)
        both = either = 0
        for name in ours:
            we_swapped = ours[name] ^ start[name]
            they_swapped = official[name] ^ start[name]
            assert bool(we_swapped.any()) or not bool(they_swapped.any()), f"{name}: nothing swapped"
            both += int((we_swapped & they_swapped).sum())
            either += int((we_swapped | they_swapped).sum())
        figures.append(f"swaps Jaccard {both / either:.4f} of {either}")
        assert both / either >= 0.95

    stored = run.weights()
    reconstructed = run.method == "sparsegpt" or run.keep_reconstruction
    assert len(stored) == (2 if reconstructed else 0)
    for name, theirs in stored.items():
        distance = (linears(model)[name].weight.detach() - theirs).norm() / theirs.norm()
        figures.append(f"{name} weights differ {distance:.1e}")
        assert distance <= 1e-3

    with capsys.disabled():
        print(f"\n  {run.id}: {'; '.join(figures)}", end=" ")
