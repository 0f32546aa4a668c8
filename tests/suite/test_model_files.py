"""What a model's files give away before anything runs: refused in one line, or remarked by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from methods.errors import InputError
from suite.models.files import FORMATS
from suite.models.loading import load_model, load_skeleton
from suite.models.source import folder_digest
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from tests.methods.tiny_models import make_model
from tests.suite.conftest import edit_json, refusal
from tests.tiny import write_measured_suite, write_suite


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def projections(tensors):
    return [name for name in tensors if name.endswith("proj.weight")]


def fp8(tensors):
    for name in projections(tensors):
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def packed(tensors):
    """As GPTQ and AWQ store weights: eight in an int32, under another name."""
    for name in projections(tensors):
        rows, columns = tensors.pop(name).shape
        stem = name.removesuffix("weight")
        tensors[stem + "qweight"] = torch.zeros(columns, rows // 8, dtype=torch.int32)
        tensors[stem + "scales"] = torch.ones(1, rows, dtype=torch.float16)


def in_place(tensors):
    """As bitsandbytes stores weights: bytes under the name of the weight."""
    for name in projections(tensors):
        tensors[name] = tensors[name].to(torch.int8)


def with_scales(tensors):
    for name in projections(tensors):
        tensors[f"{name}_scale_inv"] = torch.ones(1, 1)


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "fp8", "weight_block_size": [32, 32]},
        {"quant_method": "mxfp4"},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "compressed-tensors"},
        {"quant_method": "nobody-knows"},
        {"quant_method": "gguf"},
        {"load_in_8bit": True},
        {},
    ],
)
def test_a_quantized_model_is_refused_everywhere(everywhere, model, quantization):
    edit_json(model / "config.json", quantization_config=quantization)
    line = everywhere()
    assert "is quantized" in line
    assert str(quantization.get("quant_method", "not named")) in line


def test_so_is_one_that_says_it_of_a_part(model):
    edit_json(model / "config.json", text_config={"quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(InputError, match="is quantized"):
        load_skeleton(str(model))


@pytest.mark.parametrize("quantize", [fp8, packed, in_place])
def test_weights_that_are_quantized_without_a_word_are_refused_everywhere(everywhere, model, quantize):
    change_tensors(model, quantize)
    assert "is quantized (model.layers.0." in everywhere()


def test_no_quantization_is_none(model):
    edit_json(model / "config.json", quantization_config=None)
    assert load_model(str(model)).remarks == ()


def test_what_can_be_read_is_listed_once():
    assert [known.name for known in FORMATS] == ["safetensors", "GGUF"]
    assert {known.quant_method for known in FORMATS} == {None}


def test_an_adapter_beside_the_model_is_refused_everywhere(everywhere, model):
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    assert "has an adapter in its folder (adapter_config.json)" in everywhere()


def test_an_adapter_alone_is_named(prunebench, model, text):
    (model / "config.json").unlink()
    (model / "adapter_config.json").write_text("{}")
    line = refusal(prunebench("evaluate", model, "--perplexity", text))
    assert "is only an adapter" in line


def test_weights_under_another_name_are_refused(everywhere, model):
    edit_json(model / "config.json", transformers_weights="other.safetensors")
    assert "'other.safetensors'" in everywhere()


def add(name, *shape):
    def change(tensors):
        tensors[name] = torch.ones(*shape)

    return change


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_proj.bias", (16,)),
        ("layers.0.self_attn.q_proj.bias", (16,)),  # as the model's body alone is saved
        ("model.layers.1.self_attn.q_norm.weight", (8,)),
        ("model.layers.1.mlp.up_proj.weight_scale_inv", (1, 1)),
        ("model.norm.bias", (16,)),
        ("model.embed_tokens.scale", (1,)),
    ],
)
def test_a_tensor_that_a_module_of_the_model_does_not_take_is_refused(everywhere, model, name, shape):
    change_tensors(model, add(name, *shape))
    assert f"contain {name}," in everywhere()


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.mlp.up_proj.weight",  # a layer that config.json does not count
        "score.weight",  # a classifier
        "vision_tower.encoder.layers.0.weight",
        "model.mtp_layers.0.weight",
    ],
)
@pytest.mark.parametrize("placement", ["resident", "onload"])
def test_a_tensor_without_a_place_is_remarked_by_name(
    prune, prunebench, model, text, tmp_path, name, placement
):
    change_tensors(model, add(name, 4, 4))
    code, _, err = prune("--method", "wanda", "--sparsity", "0.5", "--placement", placement)
    assert code == 0, err
    assert f"left out: {name}" in err
    assert name in read_pruning(tmp_path / "pruned").record.warnings[0]
    assert name not in load_file(next((tmp_path / "pruned").glob("*.safetensors")))
    asked = ("--task", "none", "--prompts", "none", "--no-speed", "--json", "--placement", placement)
    code, out, err = prunebench("evaluate", model, "--perplexity", text, "--seqlen", 32, *asked)
    assert code == 0, err
    assert [name in warning for warning in json.loads(out)["warnings"]] == [True]


def test_a_run_says_it_and_so_do_its_records(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    change_tensors(tmp_path / "model", add("score.weight", 3, 16))
    code, _, err = prunebench("run", suite, "--out", "runs")
    assert code == 0, err
    assert "left out: score.weight" in err
    for stored in ResultStore(tmp_path / "runs").records().records:
        assert "score.weight" in stored.record.warnings[0]
    assert "score.weight" in (tmp_path / "runs" / "report.html").read_text()


@pytest.mark.parametrize("spelling", ["model.layers.0.self_attn.q_proj.weight"])
def test_a_tensor_that_is_stored_under_two_names_is_refused(everywhere, model, spelling):
    change_tensors(model, add(spelling.removeprefix("model."), 16, 16))
    line = everywhere()
    assert spelling in line
    assert "which are the same tensor" in line


def test_a_nan_in_what_is_left_out_spoils_nothing(model):
    def add_nan(tensors):
        tensors["score.weight"] = torch.full((3, 16), torch.nan)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.full((4,), torch.nan)

    change_tensors(model, add_nan)
    assert len(load_skeleton(str(model)).remarks) == 1
    assert len(load_model(str(model)).remarks) == 1


@pytest.mark.parametrize(
    ("family", "name", "dtype"),
    [
        ("gptj", "transformer.h.0.attn.bias", torch.uint8),
        ("gptj", "transformer.h.0.attn.masked_bias", torch.float32),
        ("gpt2", "h.0.attn.bias", torch.bool),
        ("llama", "model.position_ids", torch.int64),
    ],
)
def test_masks_and_positions_that_older_code_stored_are_no_remark(tmp_path, family, name, dtype):
    make_model(family).save_pretrained(tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.update({name: torch.ones(4, dtype=dtype)}))
    assert load_skeleton(str(tmp_path / "model")).remarks == ()
    assert load_model(str(tmp_path / "model")).remarks == ()


def experts(tensors):
    return [name for name in tensors if ".experts." in name]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize("family", ["mixtral", "gpt-oss"])
def test_quantized_experts_are_refused(tmp_path, family, dtype):
    make_model(family).save_pretrained(tmp_path / "model")

    def quantize(tensors):
        for name in experts(tensors):
            tensors[name] = tensors[name].to(dtype)

    change_tensors(tmp_path / "model", quantize)
    for load in (load_skeleton, load_model):
        with pytest.raises(InputError, match="is quantized"):
            load(str(tmp_path / "model"))


def test_an_expert_that_is_missing_is_one_line(tmp_path):
    make_model("mixtral").save_pretrained(tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.pop(min(experts(tensors))))
    for load in (load_skeleton, load_model):
        with pytest.raises(InputError, match=r"lacks|cannot be built") as caught:
            load(str(tmp_path / "model"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "neox", "mixtral", "gpt-oss", "opt", "bloom"])
def test_what_the_architecture_ignores_or_keeps_as_buffers_is_no_remark(tmp_path, family):
    model = make_model(family)
    model.save_pretrained(tmp_path / "model")
    buffers = dict(model.named_buffers())
    name = next(
        (name for name in buffers if name.endswith(("attn.bias", "attention.bias", "inv_freq"))), None
    )
    if name is not None:
        change_tensors(tmp_path / "model", add(name, *(buffers[name].shape or (1,))))
    assert load_skeleton(str(tmp_path / "model")).remarks == ()
    assert load_model(str(tmp_path / "model")).remarks == ()


def spoil(name, value, dtype=torch.float32):
    def change(tensors):
        tensors[name] = tensors[name].to(dtype)
        tensors[name].view(-1)[5] = value

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_a_value_that_is_no_number_is_found_before_anything_runs(everywhere, model, name, value):
    change_tensors(model, spoil(name, value))
    assert f"{name} has NaN or infinity (1 of" in everywhere()


def test_a_value_that_the_dtype_cannot_hold_is_named(prune, model):
    change_tensors(model, spoil("model.layers.0.mlp.up_proj.weight", 1e6))
    assert prune("--method", "magnitude", "--sparsity", "0.5")[0] == 0
    line = refusal(prune("--method", "magnitude", "--sparsity", "0.5", "--dtype", "float16", "--out", "half"))
    assert "model.layers.0.mlp.up_proj.weight has NaN or infinity (1 of 512 values as float16)" in line


def test_large_finite_weights_are_fine(prune, model):
    change_tensors(model, lambda tensors: tensors["model.norm.weight"].fill_(3e38))
    assert prune("--method", "magnitude", "--sparsity", "0.5")[0] == 0


COUNTED = (
    *("chat_template.jinja", "additional_chat_templates/tools.jinja", "modeling_own.py", "tokenizer.model"),
    *("vocab.txt", "merges.txt", "special_tokens_map.json", "code/part.py", "qwen.tiktoken"),
)
FOR_PEOPLE = (
    "README.md",
    "LICENSE",
    ".gitattributes",
    "plot.png",
    "pytorch_model.bin",
    "checkpoint-5/a.json",
)


@pytest.mark.parametrize("name", COUNTED)
def test_every_file_that_can_change_a_number_is_in_the_folders_digest(model, name):
    seen = {folder_digest(model, None)}
    (model / name).parent.mkdir(exist_ok=True)
    for content in ("one", "two"):
        (model / name).write_text(content)
        seen.add(folder_digest(model, None))
    (model / name).rename(model / name.replace(".", "-2.", 1))
    seen.add(folder_digest(model, None))
    assert len(seen) == 4


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_what_cannot_change_one_is_not(model, name):
    before = folder_digest(model, None)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("something")
    assert folder_digest(model, None) == before


def test_a_record_is_stale_when_the_chat_template_changes(prunebench, tmp_path):
    suite = write_measured_suite(tmp_path, "magnitude")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text("{{ messages[0]['content'] }}")
    again = ("run", suite, "--out", "runs", "--existing", "rerun-stale", "--json")
    assert json.loads(prunebench(*again)[1])["finished"] == 2
    assert json.loads(prunebench(*again)[1])["kept"] == 2
    template.write_text("Say: {{ messages[0]['content'] }}")
    assert json.loads(prunebench(*again)[1])["finished"] == 2


def test_a_copy_of_a_folder_has_its_digest(model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    assert folder_digest(model, None) == folder_digest(tmp_path / "copy", None)
