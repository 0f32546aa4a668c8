"""`prunebench run --placement onload`: models are never whole in memory, and the records say the same."""

import json
import threading

import pytest
from safetensors.torch import load_file, save_file

from methods.errors import ContractError
from suite.results import ResultStore
from tests.suite.conftest import refusal
from tests.suite.test_measured_run import TIMED
from tests.tiny import write_measured_suite

MORE = """
[[methods]]
name = "llm-barber"
settings = { rebuild_ratio = 0.1 }
[[methods]]
name = "llm-barber"
settings = { initial = "sparsegpt", keep_reconstruction = true }
[[methods]]
name = "wanda"
patterns = ["0.6"]
allocation = "owl"
"""


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(folder))
    return folder


@pytest.fixture
def suite(tmp_path):
    return write_measured_suite(tmp_path, "magnitude wanda sparsegpt", MORE, threads=1)


def records(folder):
    """The label of a cell -> its record."""
    stored = ResultStore(folder).records()
    assert not stored.unreadable
    return {s.record.cell.label: s.record for s in stored.records}


def numbers(record):
    """What does not depend on how long it took and how much memory."""
    return (
        [m for m in record.metrics if not m.name.endswith(TIMED)],
        *(record.windows, record.divergences, record.tasks, record.answers),
        *(record.mask_digest, record.initial_mask_digest, record.modules, record.model),
    )


def left_over(scratch):
    threads = [t.name for t in threading.enumerate() if t.name.startswith("prunebench-prefetch")]
    return [path.name for path in scratch.glob(".tmp-*")] + threads


def test_records_are_those_of_whole_models(prunebench, suite, scratch, tmp_path):
    for placement in ("resident", "onload"):
        code, _, err = prunebench("run", suite, "--placement", placement, "--out", placement)
        assert code == 0, err
    resident, onload = records(tmp_path / "resident"), records(tmp_path / "onload")
    assert len(onload) == 7
    assert {label: numbers(record) for label, record in onload.items()} == {
        label: numbers(record) for label, record in resident.items()
    }
    assert {record.placement for record in onload.values()} == {"onload"}
    assert {record.placement for record in resident.values()} == {"resident"}
    sizes = {"checkpoint_bytes", "bitmask_bytes"}
    for label, record in onload.items():
        of_resident = {m.name: m.value for m in resident[label].metrics}
        assert all(m.value == of_resident[m.name] for m in record.metrics if m.name in sizes)
        assert record.reference_speed.forward_tokens_per_second > 0
    assert left_over(scratch) == []


def test_the_record_says_why_there_is_no_speed(prunebench, suite, scratch, tmp_path):
    prunebench("run", suite, "--placement", "onload", "--out", "runs", "--only", "magnitude")
    (record,) = records(tmp_path / "runs").values()
    speeds = [metric for metric in record.metrics if metric.name.endswith("per_second")]
    assert len(speeds) == 4
    assert {(m.value, m.status) for m in speeds} == {(None, "layers visited the device one by one")}


def test_what_was_run_whole_is_kept_and_what_lacks_is_run(prunebench, suite, scratch):
    prunebench("run", suite, "--out", "runs", "--only", "magnitude")
    _, out, _ = prunebench("run", suite, "--out", "runs", "--placement", "onload", "--json")
    told = json.loads(out)
    assert (told["kept"], told["finished"]) == (1, 6)


@pytest.mark.slow
def test_several_processes_take_the_placement_with_them(prunebench, suite, scratch, tmp_path):
    code, _, err = prunebench(
        *("run", suite, "--placement", "onload", "--workers", 2, "--out", "runs", "--device", "cpu"),
        *("--only", "magnitude", "--only", "sparsegpt 0.5"),
    )
    assert code == 0, err
    assert {record.placement for record in records(tmp_path / "runs").values()} == {"onload"}
    assert left_over(scratch) == []


def test_a_rerun_that_verifies_a_record_onloads_too(prunebench, suite, scratch, tmp_path, monkeypatch):
    prunebench("run", suite, "--placement", "onload", "--out", "runs", "--only", "wanda 0.5")
    monkeypatch.setattr("suite.models.reusable.load_model", None)
    code, out, err = prunebench("verify", "runs", "--rerun")
    assert code == 0, out + err


def test_a_method_that_breaks_its_promises_fails_its_cell_alone(
    prunebench, suite, scratch, tmp_path, monkeypatch
):
    def refuse(method, pattern, before, loaded, result):
        if method.name == "wanda":
            raise ContractError("model.layers.0.mlp.up_proj: a pruned weight is not 0")
        return {}

    monkeypatch.setattr("suite.models.reusable.check_layered_contract", refuse)
    code, _, err = prunebench("run", suite, "--placement", "onload", "--out", "runs")
    assert code == 3
    failed = [line for line in err.splitlines() if line.startswith(f"failed: {tmp_path}")]
    assert [line.endswith("a pruned weight is not 0") for line in failed] == [True, True]
    assert sum(record.status == "complete" for record in records(tmp_path / "runs").values()) == 5
    assert left_over(scratch) == []


def test_an_interrupt_leaves_no_weights_behind(prunebench, suite, scratch, monkeypatch):
    def interrupt(self, layer, weights):
        raise KeyboardInterrupt

    monkeypatch.setattr("methods.placement.layer_storage.CheckpointStorage.store", interrupt)
    assert prunebench("run", suite, "--placement", "onload", "--out", "runs")[0] == 130
    assert left_over(scratch) == []


def test_a_scratch_that_cannot_be_written_fails_cells_with_its_name(prunebench, suite, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path / "file" / "below"))
    code, _, err = prunebench("run", suite, "--placement", "onload", "--no-reuse", "--out", "runs")
    assert code == 3
    assert str(tmp_path / "file") in err


def test_a_model_that_lies_otherwise_in_its_files_says_what_does_it(prunebench, suite, scratch, tmp_path):
    model = tmp_path / "model" / "model.safetensors"
    state = load_file(model)
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, model, metadata={"format": "pt"})
    answer = prunebench("run", suite, "--placement", "onload", "--out", "runs", "--only", "dense")
    assert "lacks 1 of its weights" in refusal(answer)
    assert not (tmp_path / "runs").exists()


def test_evaluate_measures_a_checkpoint_layer_by_layer(prunebench, prune, model, text, tmp_path):
    assert prune("--method", "sparsegpt", "--pattern", "2:4")[0] == 0
    told = {}
    for placement in ("resident", "onload"):
        code, out, err = prunebench(
            *("evaluate", "pruned", "--dense", model, "--perplexity", text, "--seqlen", 32),
            *("--max-tokens", 320, "--task", "offline_agreement", "--limit", 10, "--max-new-tokens", 4),
            *("--dtype", "float32", "--json", "--placement", placement),
        )
        assert code == 0, err
        told[placement] = json.loads(out)
    resident, onload = told["resident"], told["onload"]
    assert (resident["placement"], onload["placement"]) == ("resident", "onload")
    for key in (
        "cell",
        "model",
        "checkpoint",
        "windows",
        "divergences",
        "tasks",
        "answers",
        "modules",
        "warnings",
    ):
        assert onload[key] == resident[key], key
    timed = ("seconds", "bytes", "per_second")
    assert [m for m in onload["metrics"] if not m["name"].endswith(timed)] == [
        m for m in resident["metrics"] if not m["name"].endswith(timed)
    ]


def test_evaluate_finds_a_changed_head_layer_by_layer(prunebench, prune, model, text, tmp_path):
    assert prune("--method", "magnitude", "--sparsity", "0.5")[0] == 0
    file = tmp_path / "pruned" / "model.safetensors"
    state = load_file(file)
    state["model.embed_tokens.weight"][0] += 0.5
    save_file(state, file, metadata={"format": "pt"})
    code, _, err = prunebench(
        *("evaluate", "pruned", "--dense", model, "--perplexity", text, "--seqlen", 32, "--task", "none"),
        *("--max-tokens", 320, "--prompts", "none", "--dtype", "float32", "--placement", "onload"),
    )
    assert code == 0
    assert "1 parameters outside the target modules differ" in err
