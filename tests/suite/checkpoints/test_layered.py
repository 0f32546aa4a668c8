"""`prunebench prune --placement onload`: the model is never whole in memory, and the answer is the same."""

import json
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from methods.scores.magnitude import Magnitude
from methods.structure.target import Target
from suite.checkpoints.writing import checkpoint
from suite.results.records.pruning_file import read_pruning
from suite.results.statistics.model_metrics import SIZES
from tests.methods.tiny_models import make_model
from tests.suite.conftest import refusal
from tests.tiny import save_tiny_model

OF_THE_RUN = ("created", "shared", "phases", "placement", "metrics", "body_digest")
"""What `pruning.json` says of a run, and not of its outcome; of its metrics only costs are."""


def state_of(folder):
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(loading.values())
    return model.state_dict()


def outcome(pruning):
    """What `pruning.json` says of a prune's outcome."""
    record = pruning.record
    metrics = [metric for metric in record.metrics if metric.name == "sparsity" or metric.name in SIZES]
    return pruning.n_zeros, metrics, record.model_dump(exclude=set(OF_THE_RUN))


def assert_same(onload, resident):
    """Two checkpoints load as the same model, to the bit, and tell the same of how they came about."""
    expected, state = state_of(resident), state_of(onload)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name
    told, tells = (read_pruning(folder) for folder in (resident, onload))
    assert (told.record.placement, tells.record.placement) == ("resident", "onload")
    assert outcome(tells) == outcome(told)
    weights = {"model.safetensors", "model.safetensors.index.json"}
    files = {path.name for path in onload.iterdir() if "-of-" not in path.name}
    assert files - weights == {path.name for path in resident.iterdir()} - weights
    for name in ("config.json", "generation_config.json"):
        assert (onload / name).read_text() == (resident / name).read_text()


@pytest.fixture
def both(prunebench, text, tmp_path):
    """Prunes a model both ways."""

    def call(model, *arguments):
        for placement in ("resident", "onload"):
            code, out, err = prunebench(
                *("prune", model, "--calibration", text, "--n-samples", 4, "--seqlen", 32),
                *("--dtype", "float32", "--device", "cpu", "--placement", placement),
                *("--out", tmp_path / placement, *arguments),
            )
            assert code == 0, err
            assert out.strip() == str(tmp_path / placement)
        assert_same(tmp_path / "onload", tmp_path / "resident")

    return call


@pytest.mark.parametrize(
    "arguments",
    [
        ("--method", "magnitude", "--sparsity", "0.5"),
        ("--method", "wanda", "--pattern", "2:4", "--dtype", "bfloat16"),
        ("--method", "llm-barber", "--sparsity", "0.5", "--set", "initial=sparsegpt",
         "--set", "keep_reconstruction=true"),
        ("--method", "dsnot", "--sparsity", "0.6", "--allocation", "owl"),
    ],
)  # fmt: skip
def test_the_checkpoint_is_the_same(both, model, arguments):
    both(model, *arguments)


def save_sharded(folder):
    save_tiny_model(folder)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="2KB")
    (folder / "model.safetensors").unlink(missing_ok=True)


def save_without_prefix(folder):
    """As the base model's own `save_pretrained` names its tensors."""
    save_tiny_model(folder)
    state = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): state[name] for name in state}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip


def save_with_more(folder):
    """With tensors that the model does not have, as old checkpoints are."""
    save_tiny_model(folder)
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def save_both_ties(folder):
    """With input and output embeddings, which are equal and tied."""
    save_tiny_model(folder)
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("save", [save_sharded, save_without_prefix, save_with_more, save_both_ties])
def test_whatever_way_the_files_are_laid_out(both, tmp_path, save):
    save(tmp_path / "laid-out")
    both(tmp_path / "laid-out", "--method", "wanda", "--sparsity", "0.5")


@pytest.mark.parametrize("family", ["opt", "gpt2", "neox", "gptj", "gemma3", "gpt-oss"])
def test_families_without_a_tokenizer(both, tmp_path, family):
    make_model(family).save_pretrained(tmp_path / family)
    ids = torch.randint(0, 97, (4, 24), generator=torch.Generator().manual_seed(1))
    save_file({"input_ids": ids}, tmp_path / "ids.safetensors")
    both(
        *(tmp_path / family, "--method", "wanda", "--sparsity", "0.5", "--dtype", "bfloat16"),
        *("--calibration", tmp_path / "ids.safetensors", "--seqlen", 24),
    )
    assert not (tmp_path / "onload" / "tokenizer.json").exists()


@pytest.fixture
def onload(prune):
    def call(*arguments):
        return prune("--placement", "onload", "--sparsity", "0.5", *arguments)

    return call


def test_what_the_files_do_not_hold_as_it_is_is_refused(prunebench, tmp_path):
    make_model("mixtral").save_pretrained(tmp_path / "mixtral")
    line = refusal(
        prunebench(
            *("prune", tmp_path / "mixtral", "--method", "magnitude", "--sparsity", "0.5"),
            *("--placement", "onload", "--out", "pruned"),
        )
    )
    assert "model.layers.0.mlp.experts.gate_up_proj" in line
    assert "--placement resident" in line
    assert not (tmp_path / "pruned").exists()


def change_state(model, change):
    state = load_file(model / "model.safetensors")
    change(state)
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})


def truncate(model):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def garble(model):
    (model / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")


def drop(model):
    change_state(model, lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))


def misshape(model):
    change_state(model, lambda state: state.update({"model.layers.1.mlp.up_proj.weight": torch.ones(2, 2)}))


def quantize(model):
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "ends before its tensors do"),
        (garble, "header is damaged"),
        (drop, "lacks 1 of its weights, for example model.layers.1.mlp.up_proj.weight"),
        (misshape, "up_proj.weight has shape [2, 2] in its files, but [32, 16] by its config.json"),
        (quantize, "is quantized"),
    ],
)
def test_a_damaged_model_gets_one_line_and_writes_nothing(onload, model, tmp_path, damage, message):
    damage(model)
    assert message in refusal(onload("--method", "magnitude"))
    assert left_over(tmp_path) == []


def test_an_unknown_placement_is_refused(prune):
    assert "--placement" in prune("--method", "magnitude", "--sparsity", "0.5", "--placement", "cloud")[2]


def test_nan_weights_name_the_module_and_leave_nothing(onload, model, tmp_path):
    change_state(model, lambda state: state["model.layers.1.mlp.up_proj.weight"].fill_(torch.nan))
    assert "model.layers.1.mlp.up_proj.weight" in refusal(onload("--method", "magnitude"))
    assert left_over(tmp_path) == []


def test_an_interrupted_prune_leaves_nothing(onload, tmp_path, monkeypatch):
    def interrupt(self, layer, weights):
        raise KeyboardInterrupt

    monkeypatch.setattr("methods.placement.layer_storage.CheckpointStorage.store", interrupt)
    assert onload("--method", "wanda")[0] == 130
    assert left_over(tmp_path) == []


def test_a_full_disk_leaves_nothing(onload, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_shards", full)
    code, _, err = onload("--method", "magnitude")
    assert (code, "No space left on device" in err) == (3, True)
    assert left_over(tmp_path) == []


def test_a_method_that_breaks_its_promises_is_caught(onload, tmp_path, monkeypatch):
    def write(self, weight, keep):
        self.weight.copy_(weight)

    monkeypatch.setattr(Target, "write", write)
    code, _, err = onload("--method", "magnitude")
    assert code == 3
    assert "a pruned weight is not 0" in err
    assert left_over(tmp_path) == []


def test_a_change_outside_the_layers_is_caught(onload, tmp_path, monkeypatch):
    prune = Magnitude.prune

    def change(self, model, *arguments, **named):
        with torch.no_grad():
            model.get_input_embeddings().weight[0] = 1
        return prune(self, model, *arguments, **named)

    monkeypatch.setattr(Magnitude, "prune", change)
    code, _, err = onload("--method", "magnitude")
    assert code == 3
    assert "model.embed_tokens.weight: is not a target module and was changed" in err
    assert left_over(tmp_path) == []


def left_over(folder):
    """What a prune left in `folder` or running."""
    known = {"model", "text.txt"}
    threads = [t.name for t in threading.enumerate() if t.name.startswith("prunebench-prefetch")]
    return sorted({path.name for path in folder.iterdir()} - known) + threads
