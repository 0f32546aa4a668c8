"""`prunebench evaluate` measures any checkpoint and says where its sparsity comes from."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from suite.finished_checkpoint import count_zeros
from suite.results import ResultStore
from tests.suite.conftest import refusal


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
    assert count_zeros(loaded).pattern is None
    with torch.no_grad():
        for name, weight in loaded.named_parameters():
            if name.endswith("proj.weight"):
                weight.view(-1, 4)[:, :2] = 0.0
    assert count_zeros(loaded).pattern == "2:4"
    with torch.no_grad():
        loaded.model.layers[0].mlp.up_proj.weight[0, :4] = 1.0
    assert count_zeros(loaded).pattern.startswith("0.49")


def test_what_cannot_be_measured_costs_one_line(evaluate, prunebench, model, pruned, text, tmp_path):
    assert "did you mean" in refusal(prunebench("evaluate", model, "--task", "offline_agrement"))
    assert "unknown corpus" in refusal(prunebench("evaluate", model, "--perplexity", "wiki"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    assert "line 2" in refusal(prunebench("evaluate", model, "--prompts", broken, "--perplexity", text))
    (pruned / "pruning.json").write_text("{}")
    assert "it is not what prunebench prune writes" in refusal(evaluate(pruned))
    (pruned / "pruning.json").write_text("{")
    assert "pruning.json cannot be read" in refusal(evaluate(pruned))


def test_a_dense_model_of_another_structure_is_refused(evaluate, model, pruned, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = LlamaConfig.from_pretrained(model, intermediate_size=64)
    LlamaForCausalLM(config).save_pretrained(other)
    line = refusal(evaluate(pruned, "--dense", other))
    assert "has shape (16, 32) in the one and (16, 64) in the other" in line


def test_a_dense_model_with_another_tokenizer_is_refused(evaluate, model, pruned, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["tree", "lamp"])
    tokenizer._tokenizer.save(str(other / "tokenizer.json"))
    line = refusal(evaluate(pruned, "--dense", other))
    assert "tokenizers make other tokens of" in line or "outside the model's vocabulary" in line
