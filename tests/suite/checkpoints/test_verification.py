"""`prunebench verify` of a pruned checkpoint, and of a record beside it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from suite.results.reading import load_record
from suite.results.record import SideFile
from suite.results.store import ResultStore


@pytest.fixture
def pruned(prune, tmp_path):
    code, _, err = prune("--method", "magnitude", "--pattern", "2:4")
    assert code == 0, err
    return tmp_path / "pruned"


def edit_summary(folder, **changes):
    path = folder / "pruning.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_is_what_its_summary_says(prunebench, pruned):
    code, out, err = prunebench("verify", pruned)
    assert code == 0, out + err
    assert out.strip() == "0 records; 0 problems, 0 remarks"


def test_a_weight_that_came_back_is_told(prunebench, pruned):
    def restore(tensors):
        weight = tensors["model.layers.0.mlp.up_proj.weight"]
        weight[weight == 0] = 0.5

    edit_weights(pruned, restore)
    code, out, _ = prunebench("verify", pruned)
    assert code == 1
    assert "problem (checkpoint)" in out and "model.layers.0.mlp.up_proj" in out
    assert "more than 2 of 4 consecutive weights are not 0" in out


def test_as_many_zeros_elsewhere_are_told_by_the_mask(prunebench, pruned):
    def swap(tensors):
        name = "model.layers.1.mlp.down_proj.weight"
        tensors[name] = tensors[name].flip(1).contiguous()

    edit_weights(pruned, swap)
    code, out, _ = prunebench("verify", pruned)
    assert code == 1 and out.count("problem") == 2  # the finding, and the count
    assert "problem (mask): mask_digest is" in out


def test_zeros_that_were_not_pruned_leave_the_mask_open(prunebench, pruned):
    def clear(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"][0] = 0

    edit_weights(pruned, clear)
    summary = json.loads((pruned / "pruning.json").read_text())
    module = summary["modules"]["model.layers.0.mlp.up_proj"]
    weight = load_file(pruned / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    module["n_zeros"] = int((weight == 0).sum())
    edit_summary(pruned, modules=summary["modules"])
    code, out, _ = prunebench("verify", pruned)
    assert code == 0 and "remark (mask)" in out


@pytest.mark.parametrize("changes", [{"sparsity": 0.6}, {"pattern": "1:4"}, {"mask_digest": None}])
def test_an_edited_summary_is_told(prunebench, pruned, changes):
    edit_summary(pruned, **changes)
    code, out, _ = prunebench("verify", pruned)
    assert code == 1 and "problem (checkpoint)" in out


def test_a_record_is_held_against_the_checkpoint_of_its_prune(prunebench, pruned, model, text, tmp_path):
    from suite.cell import Cell
    from suite.harness import run_cell
    from suite.preflight import preflight
    from suite.workbench import Workbench

    cell = Cell(model=str(model), method="magnitude", settings={}, pattern="2:4", dtype="float32")
    record, items = run_cell(cell, Workbench(torch.device("cpu"), preflight([cell])))
    store = ResultStore(tmp_path / "results")
    path = store.write(record, items)
    code, out, _ = prunebench("verify", path, "--checkpoint", pruned)
    assert code == 0, out
    stored = load_record(path)
    assert isinstance(stored.side_file, SideFile)
    path = store.write(record.model_copy(update={"mask_digest": "0" * 64}), items)
    code, out, _ = prunebench("verify", path, "--checkpoint", pruned)
    assert code == 1 and "and the record's 000000000000" in out
    other = record.model_copy(update={"cell": cell.model_copy(update={"pattern": "0.5"})})
    path = store.write(other, items)
    code, out, _ = prunebench("verify", path, "--checkpoint", pruned)
    assert code == 1 and "has pattern 2:4, and the record 0.5" in out
