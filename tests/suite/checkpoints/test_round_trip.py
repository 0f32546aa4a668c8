"""What `prune` wrote is opened again before it says that it is done; a mismatch fails and leaves nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from suite.checkpoints.writing import checkpoint
from tests.methods.tiny_models import ALL_FAMILIES, make_model

PLACEMENTS = ["resident", "onload"]


@pytest.fixture
def left(tmp_path):
    """What lies beside the model and the text, which are there from the start."""

    def call():
        return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("model", "text.txt"))

    return call


def after(monkeypatch, place, name, change):
    """Lets `change` have the folder once `place.name` is done with it."""
    original = getattr(place, name)

    def call(*given, **more):
        result = original(*given, **more)
        change(next(value for value in given if hasattr(value, "glob")))
        return result

    monkeypatch.setattr(place, name, call)


def change_tensors(folder, change):
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if change(tensors):
            save_file(tensors, path, metadata={"format": "pt"})


def one_bit(name):
    def change(tensors):
        if name in tensors:
            tensors[name].view(torch.int32).view(-1)[3] ^= 1
        return name in tensors

    return change


def other_dtype(name):
    def change(tensors):
        if name in tensors:
            tensors[name] = tensors[name].to(torch.bfloat16)
        return name in tensors

    return change


def gone(name):
    return lambda tensors: tensors.pop(name, None) is not None


def other_config(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 0.5}))


def damage(monkeypatch, placement, change):
    """Changes what was written, before it is read again."""
    if placement == "resident":
        after(monkeypatch, PreTrainedModel, "save_pretrained", change)
    else:
        after(monkeypatch, checkpoint, "write_shards", change)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize(
    ("change", "says"),
    [(one_bit, "reads back otherwise"), (other_dtype, "bfloat16"), (gone, "")],
)
def test_a_tensor_that_was_not_written_as_it_is_fails_and_is_named(
    prune, monkeypatch, left, placement, name, change, says
):
    damage(monkeypatch, placement, lambda folder: change_tensors(folder, change(name)))
    code, out, err = prune("--method", "sparsegpt", "--sparsity", "0.5", "--placement", placement)
    assert (code, out) == (3, "")
    assert name in err
    assert says in err
    assert left() == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_configuration_that_computes_otherwise_fails(prune, monkeypatch, left, placement):
    damage(monkeypatch, placement, other_config)
    code, _, err = prune("--method", "magnitude", "--sparsity", "0.5", "--placement", placement)
    assert code == 3
    assert "computes other logits" in err
    assert left() == []


def test_a_weight_of_a_layer_is_compared_as_it_was_pruned(prune, monkeypatch, left):
    """Resident, the whole model is compared; onloaded, each layer as it is written."""
    name = "model.layers.1.mlp.up_proj.weight"
    damage(monkeypatch, "resident", lambda folder: change_tensors(folder, one_bit(name)))
    code, _, err = prune("--method", "sparsegpt", "--sparsity", "0.5")
    assert code == 3
    assert f"{name}: was written" in err
    assert left() == []


def test_a_layer_that_its_disk_changed_fails(prune, monkeypatch, left):
    def save(tensors, path, **more):
        changed = {name: tensor.clone() for name, tensor in tensors.items()}
        one_bit("model.layers.1.mlp.up_proj.weight")(changed)
        save_file(changed, path, **more)

    monkeypatch.setattr("methods.placement.layer_storage.save_file", save)
    code, _, err = prune("--method", "sparsegpt", "--sparsity", "0.5", "--placement", "onload")
    assert code == 3
    assert "model.layers.1.mlp.up_proj.weight differs from what was written" in err
    assert left() == []


def test_a_layer_in_another_place_fails(prune, monkeypatch, left):
    """Names, shapes and dtypes fit; only a forward tells."""

    def swapped(folder):
        files = sorted(folder.glob("*.safetensors"))[1:]
        tensors = [load_file(path) for path in files]
        for path, other, (one, two) in ((files[0], tensors[1], "10"), (files[1], tensors[0], "01")):
            renamed = {name.replace(f"layers.{one}.", f"layers.{two}."): t for name, t in other.items()}
            save_file(renamed, path, metadata={"format": "pt"})

    damage(monkeypatch, "onload", swapped)
    code, _, err = prune("--method", "magnitude", "--sparsity", "0.5", "--placement", "onload")
    assert code == 3
    assert "computes other logits" in err
    assert left() == []


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_passes_in_every_dtype(prune, tmp_path, placement, dtype):
    code, _, err = prune("--method", "wanda", "--sparsity", "0.5", "--placement", placement, "--dtype", dtype)
    assert code == 0, err
    stored = {tensor.dtype for path in (tmp_path / "pruned").glob("*.safetensors")
              for tensor in load_file(path).values()}  # fmt: skip
    assert stored == {getattr(torch, dtype)}


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
def test_every_family_comes_back_as_it_was_written(prunebench, tmp_path, family):
    make_model(family).save_pretrained(tmp_path / "family")
    code, _, err = prunebench(
        *("prune", tmp_path / "family", "--method", "magnitude", "--sparsity", "0.5"),
        *("--dtype", "bfloat16", "--out", "pruned"),
    )
    assert code == 0, err
    AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
