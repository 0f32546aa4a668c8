"""`prunebench evaluate` measures any checkpoint and says where its sparsity comes from."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, LlamaConfig, LlamaForCausalLM

from methods.errors import InputError
from suite.models.zeros import count_zeros
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from tests.suite.checkpoints.conftest import STORED
from tests.suite.conftest import edit_pruning, refusal, with_metric


@pytest.fixture
def evaluate(prunebench, text):
    """`prunebench evaluate` on a small text, with a few questions and no prompts."""

    def call(model, *arguments):
        return prunebench(
            *("evaluate", model, "--perplexity", text, "--seqlen", 32, "--max-tokens", 320),
            *("--task", "offline_agreement", "--limit", 10, "--prompts", "none", "--no-speed"),
            *("--dtype", "float32", *arguments),
        )

    return call


@pytest.fixture
def pruned(prune, tmp_path):
    code, _, err = prune("--method", "wanda", "--pattern", "2:4")
    assert code == 0, err
    return tmp_path / "pruned"


def metrics_of(out):
    return {metric["name"]: metric for metric in json.loads(out)["metrics"]}


def test_a_checkpoint_says_what_pruned_it(evaluate, pruned):
    code, out, err = evaluate(pruned, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert (record["cell"]["method"], record["cell"]["pattern"]) == ("wanda", "2:4")
    assert record["cell"]["calibration"]["n_samples"] == 4
    assert record["cell"]["checkpoint"] == str(pruned)
    assert record["model"]["name"].endswith("model")
    assert record["model"]["weight_digest"] != record["checkpoint"]["weight_digest"]
    metrics = metrics_of(out)
    assert metrics["sparsity"]["protocol"] == "target-modules"
    assert metrics["packed_bytes"]["value"] < metrics["checkpoint_bytes"]["value"]
    assert "kl_divergence" not in metrics
    assert record["warnings"] == []


def test_without_pruning_json_the_zeros_are_counted(evaluate, pruned):
    (pruned / "pruning.json").unlink()
    code, out, err = evaluate(pruned)
    assert code == 0, err
    assert "counted from zeros" in err
    (line,) = [line for line in out.splitlines() if line.startswith("sparsity")]
    assert line.split()[1:] == ["zeros", "0.5"]
    _, out, _ = evaluate(pruned, "--json")
    assert json.loads(out)["cell"]["pattern"] == "2:4"
    assert json.loads(out)["cell"]["method"] == "checkpoint"


def test_held_against_itself_nothing_differs(evaluate, model):
    code, out, err = evaluate(model, "--dense", model, "--json")
    assert code == 0, err
    metrics = metrics_of(out)
    assert metrics["kl_divergence"]["value"] == 0.0
    assert metrics["top1_agreement"]["value"] == 1.0
    assert metrics["flips_right_to_wrong"]["value"] == 0.0


def changed(model, folder, name, share):
    """A copy of a model with another value in the first rows of one weight."""
    shutil.copytree(model, folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        loaded.get_parameter(name)[: int(share * 100)] += 0.5
    loaded.save_pretrained(folder)
    return folder


def test_a_model_that_is_not_pruned_stays_itself(evaluate, model, tmp_path):
    tuned = changed(model, tmp_path / "tuned", "model.layers.0.mlp.up_proj.weight", 0.1)
    _, out, _ = evaluate(tuned, "--dense", model, "--json")
    record = json.loads(out)
    assert record["cell"]["method"] == "dense"
    assert record["model"]["name"] == str(tuned)
    assert metrics_of(out)["kl_divergence"]["value"] > 0


def test_another_head_or_another_configuration_is_said(evaluate, model, pruned, tmp_path):
    other = changed(pruned, tmp_path / "other", "model.embed_tokens.weight", 0.1)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.01}))
    _, _, err = evaluate(other, "--dense", model)
    assert "1 parameters outside the target modules differ" in err
    assert "config.json differs from the dense model's in rms_norm_eps" in err


def test_another_dense_model_than_was_pruned_is_refused(evaluate, model, pruned, tmp_path):
    other = changed(model, tmp_path / "other", "model.layers.0.mlp.up_proj.weight", 0.1)
    line = refusal(evaluate(pruned, "--dense", other, "--out", "results"))
    assert "was not pruned from" in line
    assert not (tmp_path / "results").exists()
    assert "was not pruned from" in refusal(evaluate(pruned, "--dense", other, "--placement", "onload"))
    shutil.copytree(model, tmp_path / "moved")  # the name is no part of it
    assert evaluate(pruned, "--dense", tmp_path / "moved")[0] == 0
    (pruned / "pruning.json").unlink()
    assert evaluate(pruned, "--dense", other)[0] == 0


def test_a_dense_model_that_was_pruned_itself_is_remarked(evaluate, model, pruned):
    code, _, err = evaluate(model, "--dense", pruned)
    assert code == 0, err
    assert "was pruned itself: it has a pruning.json" in err


def test_in_another_dtype_the_dense_model_cannot_be_checked_and_that_is_said(evaluate, model, pruned):
    code, out, err = evaluate(pruned, "--dense", model, "--json", "--dtype", "bfloat16")
    assert code == 0, err
    (remark,) = json.loads(out)["warnings"]
    assert "could not be checked" in remark
    assert "in float32, and they were loaded in bfloat16" in remark


def untied(folder):
    """A model of its own output head."""
    torch.manual_seed(4)
    config = LlamaConfig.from_pretrained(folder, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("placement", ["resident", "onload"])
@pytest.mark.parametrize(
    ("dense_config", "config"),
    [({}, {}), ({"final_logit_softcapping": 5.0}, {"final_logit_softcapping": 30.0})],
)
def test_each_model_is_seen_through_its_own_head(
    evaluate, model, text, tmp_path, placement, dense_config, config
):
    """Half of the head is zero, or its logits are capped otherwise: held against plain transformers."""
    if config:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 256}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
        torch.manual_seed(4)
        dense_model = AutoModelForCausalLM.from_config(Gemma2Config(**sizes, **heads, **dense_config))
        with torch.no_grad():
            dense_model.model.embed_tokens.weight.mul_(40)
        dense_model.save_pretrained(model)
    else:
        untied(model)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    loaded = AutoModelForCausalLM.from_pretrained(other)
    if not config:
        with torch.no_grad():
            head = loaded.lm_head.weight
            head[head.abs() <= head.abs().median()] = 0
    for key, value in config.items():
        setattr(loaded.config, key, value)
    loaded.save_pretrained(other)
    code, out, err = evaluate(other, "--dense", model, "--json", "--placement", placement)
    assert code == 0, err
    tokens = torch.tensor(AutoTokenizer.from_pretrained(model)(text.read_text())["input_ids"])[:320]
    with torch.inference_mode():
        p, q = (
            AutoModelForCausalLM.from_pretrained(folder)(tokens.view(10, 32)).logits[:, :-1].log_softmax(-1)
            for folder in (model, other)
        )
    expected = (p.exp() * (p - q)).sum(-1).mean().item()
    found = metrics_of(out)
    assert expected > 1e-4
    assert found["kl_divergence"]["value"] == pytest.approx(expected, rel=1e-4)
    same = (p.argmax(-1) == q.argmax(-1)).float().mean().item()
    assert found["top1_agreement"]["value"] == pytest.approx(same, abs=1e-6)


def test_models_that_are_told_other_prompts_are_not_held_against_each_other(prunebench, model, pruned, text):
    config = json.loads((model / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}{{ message.content }}!{% endfor %}"
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    asked = ("--perplexity", text, "--seqlen", 32, "--task", "none", "--max-new-tokens", 2)
    line = refusal(prunebench("evaluate", pruned, "--dense", model, *asked))
    assert "different tokens of the prompts" in line


def test_held_against_its_dense_model(evaluate, pruned, model, tmp_path):
    code, out, err = evaluate(pruned, "--dense", model, "--out", "results")
    assert code == 0, err
    assert "dense" in out.splitlines()[0]
    stored = {s.record.cell.method: s.record for s in ResultStore(tmp_path / "results").records().records}
    assert set(stored) == {"dense", "wanda"}
    assert stored["wanda"].model == stored["dense"].model
    assert stored["wanda"].metric("kl_divergence").value > 0
    frame = ResultStore(tmp_path / "results").items(
        next(s for s in ResultStore(tmp_path / "results").records().records if s.record.checkpoint)
    )
    assert {"nll", "kl", "agreement", "acc"} <= set(frame.metric)


def test_its_records_make_a_report(evaluate, prunebench, pruned, model):
    evaluate(pruned, "--dense", model, "--out", "results")
    code, _, err = prunebench("report", "results", "--out", "report.html")
    assert code == 0, err


def test_a_pruned_cell_and_its_checkpoint_measure_the_same(
    evaluate, prunebench, prune, model, text, tmp_path
):
    suite = tmp_path / "same.toml"
    suite.write_text(
        f"""name = "same"
models = ["{model}"]
patterns = ["2:4"]
dtype = "float32"
divergence = true
[calibration]
source = "{text}"
n_samples = 4
seqlen = 32
[[methods]]
name = "wanda"
[[perplexity]]
corpus = "{text}"
seqlen = 32
max_tokens = 320
"""
    )
    assert prunebench("run", suite, "--out", "run")[0] == 0
    prune("--method", "wanda", "--pattern", "2:4")
    _, out, _ = evaluate("pruned", "--dense", model, "--json")
    in_the_run = next(
        s.record for s in ResultStore(tmp_path / "run").records().records if s.record.cell.method == "wanda"
    )
    metrics = metrics_of(out)
    for name in (
        "perplexity",
        "kl_divergence",
        "top1_agreement",
        "bitmask_bytes",
        "packed_bytes",
        "sparsity",
    ):
        assert metrics[name]["value"] == in_the_run.metric(name).value


def test_weights_that_pruning_json_does_not_describe_are_noticed(evaluate, pruned):
    loaded = AutoModelForCausalLM.from_pretrained(pruned)
    with torch.no_grad():
        loaded.model.layers[0].mlp.up_proj.weight[:2] = 1.0
    loaded.save_pretrained(pruned)
    _, _, err = evaluate(pruned)
    assert "pruning.json does not fit the weights in 1 modules" in err


def test_zeros_tell_a_pattern(model):
    loaded = AutoModelForCausalLM.from_pretrained(model)
    assert count_zeros(loaded, find_pattern=True).pattern is None
    with torch.no_grad():
        for name, weight in loaded.named_parameters():
            if name.endswith("proj.weight"):
                weight.view(-1, 4)[:, :2] = 0.0
    assert count_zeros(loaded, find_pattern=True).pattern == "2:4"
    with torch.no_grad():
        loaded.model.layers[0].mlp.up_proj.weight[0, :4] = 1.0
    assert count_zeros(loaded, find_pattern=True).pattern.startswith("0.49")
    with torch.no_grad():
        for name, weight in loaded.named_parameters():
            if name.endswith("proj.weight"):
                weight.view(-1, 8)[:, :7] = 0.0
    assert count_zeros(loaded, find_pattern=True).pattern == "0.875"


def test_what_cannot_be_measured_costs_one_line(evaluate, prunebench, model, pruned, text, tmp_path):
    assert "did you mean" in refusal(prunebench("evaluate", model, "--task", "offline_agrement"))
    assert "unknown corpus" in refusal(prunebench("evaluate", model, "--perplexity", "wiki"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    assert "line 2" in refusal(prunebench("evaluate", model, "--prompts", broken, "--perplexity", text))
    (pruned / "pruning.json").write_text("{")
    assert "pruning.json: Invalid JSON" in refusal(evaluate(pruned))
    (pruned / "pruning.json").write_text('{"schema_version": 1}')
    assert "pruning.json: model: Field required" in refusal(evaluate(pruned))


NONSENSE = [
    *(("modules", []), ("modules", {"x": "y"}), ("settings", []), ("settings", {"x": []})),
    *(("sparsity", None), ("sparsity", "abc"), ("sparsity", 2.0), ("calibration", {})),
    *(("calibration", "c4"), ("model", "x"), ("model", {}), ("allocation", "owl")),
    *(("prune_seconds", "x"), ("pattern", 0.5), ("pattern", "banana"), ("method", 5)),
    *(("method", "../../x"), ("method", "dense")),
]


@pytest.mark.parametrize(("key", "value"), NONSENSE)
def test_what_was_edited_into_nonsense_costs_one_line(evaluate, pruned, key, value):
    cell = json.loads((pruned / "pruning.json").read_text())["record"]["cell"]
    if key in ("sparsity", "prune_seconds"):
        edit_pruning(pruned, metrics=with_metric(pruned, key, value))
    elif key in cell and key not in ("model", "calibration"):
        edit_pruning(pruned, cell={**cell, key: value})
    else:
        edit_pruning(pruned, **{key: value})
    assert "pruning.json" in refusal(evaluate(pruned))


@pytest.mark.parametrize(("key", "value"), NONSENSE)
def test_nonsense_in_the_first_layout_is_refused(tmp_path, key, value):
    stored = json.loads(STORED.read_text())
    (tmp_path / "pruning.json").write_text(json.dumps({**stored, key: value}))
    with pytest.raises(InputError, match=r"pruning\.json"):
        read_pruning(tmp_path)


def test_a_change_after_it_was_written_is_refused(evaluate, pruned):
    path = pruned / "pruning.json"
    path.write_text(path.read_text().replace('"2:4"', '"1:4"'))
    assert "pruning.json: was changed after it was written" in refusal(evaluate(pruned))


def test_a_newer_layout_is_refused(evaluate, pruned):
    path = pruned / "pruning.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 3}))
    assert "pruning.json: has schema version 3" in refusal(evaluate(pruned))


def test_another_sparsity_than_that_of_its_modules_is_contradicted(evaluate, pruned):
    cell = json.loads((pruned / "pruning.json").read_text())["record"]["cell"]
    metrics = with_metric(pruned, "sparsity", 0.9)
    edit_pruning(pruned, cell={**cell, "pattern": "0.9"}, metrics=metrics)
    _, _, err = evaluate(pruned)
    assert "pruning.json contradicts itself: model.layers.0" in err
    assert "sparsity target-modules: value is 0.9, by its modules 0.5" in err
    assert "by pattern 0.9" in err


def test_the_first_layout_says_the_same(evaluate, prunebench, pruned, model, first_layout):
    """Such a checkpoint is measured and verified as before, alone and against the dense model."""
    told, ways = read_pruning(pruned), ((), ("--dense", model))
    found = [json.loads(evaluate(pruned, *dense, "--json")[1]) for dense in ways]
    stored = json.loads(first_layout(pruned).read_text())
    old = read_pruning(pruned)
    assert (old.sparsity, old.prune_seconds) == (stored["sparsity"], stored["prune_seconds"])
    assert old.n_zeros == told.n_zeros
    for name in ("model", "mask_digest", "calibration", "placement", "warnings"):
        assert getattr(old.record, name) == getattr(told.record, name), name
    assert old.record.cell == told.record.cell
    for module, same in zip(old.record.modules, told.record.modules, strict=True):
        assert module.model_dump(exclude={"error_after"}) == same.model_dump(exclude={"error_after"})
    for dense, record in zip(ways, found, strict=True):
        code, out, err = evaluate(pruned, *dense, "--json")
        assert code == 0, err
        again = json.loads(out)
        assert [again[key] for key in ("cell", "warnings", "modules")] == [
            record[key] for key in ("cell", "warnings", "modules")
        ]
        assert metrics_of(out)["prune_seconds"]["value"] == old.prune_seconds
    code, out, _ = prunebench("verify", pruned)
    assert (code, out.strip()) == (0, "0 records; 0 problems, 0 remarks")


def test_zeros_of_an_earlier_prune_contradict_nothing(evaluate, prunebench, pruned, text, tmp_path):
    asked = ("--calibration", text, "--n-samples", 4, "--seqlen", 32, "--dtype", "float32")
    prunebench("prune", pruned, "--method", "wanda", "--sparsity", 0.3, *asked, "--out", "again")
    code, _, err = evaluate(tmp_path / "again")
    assert code == 0, err
    assert "pruning.json" not in err


def test_weights_that_float16_rounds_to_zero_contradict_nothing(evaluate, prunebench, model, text):
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = load_file(model / "model.safetensors")
    tensors[name][:] = 1e-8  # of a size that half precision does not have, and float32 does
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    asked = ("--sparsity", 0.3, "--calibration", text, "--n-samples", 4, "--seqlen", 32, "--dtype", "float32")
    assert prunebench("prune", model, "--method", "magnitude", *asked, "--out", "small")[0] == 0
    code, _, err = evaluate("small", "--dtype", "float16")
    assert code == 0, err
    assert "does not fit the weights" not in err
    tensors = load_file("small/model.safetensors")
    tensors[name][:] = 1.0  # as many zeros as were pruned are not there any more
    save_file(tensors, "small/model.safetensors", metadata={"format": "pt"})
    assert "does not fit the weights" in evaluate("small", "--dtype", "float16")[2]


def test_a_dense_model_of_another_structure_is_refused(evaluate, model, pruned, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = LlamaConfig.from_pretrained(model, intermediate_size=64)
    LlamaForCausalLM(config).save_pretrained(other)
    line = refusal(evaluate(pruned, "--dense", other))
    assert "has shape (16, 32) in the first and (16, 64) in the second" in line


def test_a_dense_model_with_another_tokenizer_is_refused(evaluate, model, pruned, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["tree", "lamp"])
    tokenizer._tokenizer.save(str(other / "tokenizer.json"))
    line = refusal(evaluate(pruned, "--dense", other))
    assert str(other) in line
    assert "the model has embeddings for 256" in line
