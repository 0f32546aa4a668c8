"""What cells need of memory follows from the model's shape; what cannot fit is refused before it is tried."""

import pytest
import torch

from benchmarks.capacity import SHAPES
from methods.conformance import FAMILIES
from suite.cell import CalibrationSpec, Cell
from suite.executors.local import LocalExecutor
from suite.machine.memory_available import GIB, Available
from suite.planning.estimate import memory_needed
from suite.planning.memory_needed import memory_of
from suite.planning.suite_cells import load_suite, plan
from tests.suite.conftest import refusal
from tests.tiny import write_suite

LLAMA_7B, LLAMA_70B = SHAPES["LLaMA-7B"], SHAPES["LLaMA-2-70B"]
TOKENS = 128 * 2048


def needs(shape, **changed):
    asked = {
        "itemsize": 2,
        "calibration": TOKENS,
        "carried": 341_000,
        "reference": 341_000,
        "on_gpu": True,
        "weights": "resident",
        "prunes": True,
        "starts_from_mask": False,
    }
    return memory_of(shape, **{**asked, **changed})


def test_a_7b_model_onload_fits_12_gb_and_a_70b_80_gb():
    assert needs(LLAMA_7B, weights="onload").device_bytes < 12e9
    assert needs(LLAMA_70B, weights="onload").device_bytes < 80e9
    assert needs(LLAMA_70B).least_device_bytes > 80 * GIB, "which is why"


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("weights", ["resident", "onload"])
def test_the_estimate_is_never_below_what_cannot_be_done_without(weights, on_gpu):
    found = needs(LLAMA_7B, weights=weights, on_gpu=on_gpu)
    assert found.host_bytes >= found.least_host_bytes
    assert (found.device_bytes is None) == (not on_gpu)
    if on_gpu:
        assert found.device_bytes >= found.least_device_bytes


def test_on_the_host_dense_and_pruned_weights_stand_beside_each_other():
    found = needs(LLAMA_7B, on_gpu=False, prunes=False, reference=0)
    assert found.least_host_bytes == 2 * 2 * LLAMA_7B.n_parameters
    copy = needs(LLAMA_7B, on_gpu=False, starts_from_mask=True).least_host_bytes
    assert copy - needs(LLAMA_7B, on_gpu=False).least_host_bytes == 2 * LLAMA_7B.n_target_weights


def test_gram_matrices_and_what_a_solver_makes_of_them_are_counted():
    plain, gram = needs(LLAMA_7B), needs(LLAMA_7B, gathers_gram=True, solver_bytes=12)
    assert gram.least_device_bytes - plain.least_device_bytes == 4 * (2 * 4096**2 + 11008**2)
    assert gram.device_bytes - plain.device_bytes == 4 * (2 * 4096**2 + 11008**2) + 12 * 11008**2
    onload = needs(LLAMA_7B, weights="onload", on_gpu=False, gathers_gram=True)
    assert onload.least_host_bytes > needs(LLAMA_7B, weights="onload", on_gpu=False).least_host_bytes


def test_the_gram_matrices_of_all_experts_of_a_layer_stand_together(tmp_path):
    """Wanda needs none; ALPS sums one for each input of each expert, and solves in float64."""
    model = FAMILIES["qwen3-moe"].build()
    model.save_pretrained(tmp_path)
    cells = {
        method: Cell(
            model=str(tmp_path),
            method=method,
            settings={},
            pattern="0.5",
            dtype="float32",
            calibration=CalibrationSpec(n_samples=1, seqlen=8),
        )
        for method in ("wanda", "sparsegpt", "alps")
    }
    needed = {name: memory_needed(cell, torch.device("cpu")) for name, cell in cells.items()}
    of_experts = model.config.num_experts * (
        model.config.hidden_size**2 + model.config.moe_intermediate_size**2
    )
    least = needed["sparsegpt"].least_host_bytes - needed["wanda"].least_host_bytes
    assert least >= 4 * of_experts
    assert needed["alps"].least_host_bytes == needed["sparsegpt"].least_host_bytes
    assert needed["alps"].host_bytes > needed["sparsegpt"].host_bytes


def test_what_lacks_is_said_with_what_there_is():
    found = needs(LLAMA_7B)
    small = Available(64 * GIB, 8 * GIB)
    assert small.lacks(found, surely=True) == "12.6 GiB on the GPU, which has 8.0"
    assert Available(8 * GIB, 80 * GIB).lacks(found, surely=True).endswith("of which there are 8.0")
    assert Available(64 * GIB, 80 * GIB).lacks(found) is None


def test_pruned_layers_need_disk_only_where_they_are_onloaded():
    assert needs(LLAMA_70B).scratch_bytes == 0
    assert needs(LLAMA_70B, weights="onload", prunes=False).scratch_bytes == 0
    found = needs(LLAMA_70B, weights="onload")
    assert found.scratch_bytes == 2 * LLAMA_70B.n_target_weights
    assert found.short() == "host 23.0, GPU 9.4, disk 127.5 GiB"
    assert Available(64 * GIB, 80 * GIB).lacks(found) is None, "a disk that nobody knows of"
    assert Available(64 * GIB, 80 * GIB, 128 * GIB).lacks(found) is None


def test_a_disk_that_is_too_full_is_known_before_anything_runs(prunebench, tmp_path, monkeypatch):
    path = write_suite(tmp_path, "wanda", patterns=["0.5"])
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr("suite.executors.local.memory_available", lambda d: Available(64 * GIB, None, 1000))
    run = ("run", path, "--device", "cpu", "--out", "runs")
    line = refusal(prunebench(*run, "--placement", "onload"))
    assert line.endswith(f"at least 0.0 GiB of disk in {tmp_path / 'scratch'}, of which 0.0 are free")
    assert not (tmp_path / "runs").exists()
    assert prunebench(*run, "--dry-run")[0] == 0


def test_a_cell_that_cannot_fit_is_refused_by_a_run_and_a_dry_run(prunebench, tmp_path, monkeypatch):
    path = write_suite(tmp_path, "wanda", patterns=["0.5"])
    monkeypatch.setattr("suite.executors.local.memory_available", lambda device: Available(1000, None))
    for arguments in ([], ["--dry-run"]):
        line = refusal(prunebench("run", path, "--device", "cpu", "--out", "runs", *arguments))
        assert "dense needs at least 0.0 GiB of host memory, of which there are 0.0" in line
    assert not (tmp_path / "runs").exists()


def test_a_cell_that_may_not_fit_is_said_and_the_plan_shows_memory(prunebench, tmp_path, monkeypatch):
    path = write_suite(tmp_path, "wanda", patterns=["0.5"])
    monkeypatch.setattr("suite.executors.local.memory_available", lambda device: Available(GIB, None))
    code, out, err = prunebench("run", path, "--device", "cpu", "--dry-run")
    assert code == 0
    assert "dense may need 1.4 GiB of host memory, of which there are 1.0" in err
    assert out.count("host 1.4 GiB") == 2


@pytest.mark.parametrize(
    ("machine", "of_each"),
    [
        (Available(12 * GIB, None, 6), Available(4 * GIB, None, 2)),
        (Available(12 * GIB, None), Available(4 * GIB, None)),
    ],
)
def test_workers_on_one_host_share_its_memory_and_its_disk(machine, of_each, monkeypatch):
    monkeypatch.setattr("suite.executors.local.memory_available", lambda device: machine)
    assert LocalExecutor(3 * [torch.device("cpu")]).available() == of_each


def test_where_it_would_fit_layer_by_layer_the_refusal_says_how(prunebench, tmp_path, monkeypatch):
    path = write_suite(tmp_path, "wanda", patterns=["0.5"])
    lacks = Available.lacks
    resident, onload = (memory_needed_of(path, weights) for weights in ("resident", "onload"))
    assert onload.least_host_bytes < resident.least_host_bytes

    def only_onload_fits(self, needed, *, surely=False):
        return None if needed == onload else lacks(self, needed, surely=surely)

    monkeypatch.setattr(Available, "lacks", only_onload_fits)
    monkeypatch.setattr("suite.executors.local.memory_available", lambda device: Available(1000, None))
    line = refusal(prunebench("run", path, "--device", "cpu", "--only", "wanda"))
    assert line.endswith("; with --placement onload it needs 1.4 GiB of host memory")
    code, out, _ = prunebench(
        *("run", path, "--device", "cpu", "--only", "wanda", "--placement", "onload", "--dry-run")
    )
    assert code == 0
    assert "wanda" in out


def memory_needed_of(suite, weights):
    (cell,) = [c for c in plan(load_suite(str(suite)), dtype="float32") if c.method == "wanda"]
    return memory_needed(cell, torch.device("cpu"), weights)
