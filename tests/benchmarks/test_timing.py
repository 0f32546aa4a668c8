"""One method's row: of which repeat it is, what it warns of, on which device its batches are."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks import timing
from benchmarks.machine import measure
from benchmarks.rows import load_rows, markdown, said, save_rows, setting
from benchmarks.sizes import workload
from benchmarks.timing import Bench, empty_row, restoring, time_method
from methods.base import ACCELERATOR_TOKENS, CalibrationSet, Placement
from methods.structure.decoder import read_decoder
from methods.structure.forward_override import replaced_forward
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def bench_of(model, device=CPU, batch_size=None):
    calibration = CalibrationSet(torch.randint(256, (4, 32)), "random tokens")
    placement = Placement(batch_size)
    return Bench(
        stage="test",
        name="tiny",
        model=model,
        restore=restoring(model),
        calibration=calibration,
        placement=placement,
        load=workload(model, 4, 32, placement),
        # One sequence at a time, so that where memory is short it is the prune that runs out of it.
        rates=partial(measure, model, 4, 32, batch_sizes=(1,)),
        device=device,
    )


@contextmanager
def room_for(model, n_samples):
    """The MLP of the first layer has memory for so many samples."""
    mlp = read_decoder(model).layers[0].blocks[1].entry
    forward = mlp.forward

    def short_of_memory(x, *args, **kwargs):
        if len(x) > n_samples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(x, *args, **kwargs)

    with replaced_forward(mlp, short_of_memory):
        yield


@pytest.mark.parametrize("method", ["wanda", "llm-barber"])
def test_a_row_says_that_batches_were_halved(tmp_path, method):
    model = tiny_model()
    bench = bench_of(model, batch_size=4)
    clean = time_method(bench, method, "0.5", repeats=1)
    with room_for(model, 2):
        short = time_method(bench, method, "0.5", repeats=2)
    assert clean.warnings == () and markdown([clean]).endswith("| ok |")
    assert short.batch_size == 4
    halved = "memory ran out with batches of 4 sequences; it went on with 2"
    assert halved in short.warnings and len(set(short.warnings)) == len(short.warnings)
    assert halved in said(short)
    save_rows(tmp_path / "rows.json", [short], setting(CPU))
    (read,), _ = load_rows(tmp_path / "rows.json")
    assert "| ok; memory ran out" in markdown([read]) and halved in markdown([read])


def test_times_floors_and_ratios_are_of_the_median_repeat(monkeypatch):
    model = tiny_model()
    bench = bench_of(model)
    made = []
    real = timing._repeat

    def slowed(*given):
        repeat, rates = real(*given)
        seconds = (50.0, 10.0, 30.0, 20.0)[len(made)]
        made.append(replace(repeat, seconds=seconds))
        return made[-1], rates

    monkeypatch.setattr(timing, "_repeat", slowed)
    row = time_method(bench, "wanda", "0.5", repeats=4)
    assert row.repeats == (50, 10, 30, 20) and row.seconds == 20
    assert row.floor_parts == made[3].floors.usual.parts
    assert row.strict_parts == made[3].floors.strict.parts
    assert row.phases == made[3].result.phases
    assert row.ratio == 20 / row.floor_seconds and row.strict_ratio == 20 / row.strict_floor


def test_the_batch_size_is_the_device_s():
    bench = bench_of(tiny_model())
    on_gpu = replace(bench, device=torch.device("cuda"))
    assert empty_row(on_gpu, "wanda", "0.5").batch_size == ACCELERATOR_TOKENS // 32
    assert empty_row(bench, "wanda", "0.5").batch_size < ACCELERATOR_TOKENS // 32


def test_weights_that_were_kept_come_back():
    model = tiny_model()
    dense = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    restore = restoring(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    restore()
    assert all(torch.equal(parameter, dense[name]) for name, parameter in model.named_parameters())
