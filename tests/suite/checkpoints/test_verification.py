"""`prunebench verify` of a pruned checkpoint, and of a record beside it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from suite.results.records.pruning_file import read_pruning
from suite.results.records.reading import load_record
from suite.results.records.record import SideFile
from suite.results.records.store import ResultStore
from tests.methods.tiny_models import make_model
from tests.suite.conftest import edit_pruning, with_metric
from tests.tiny import byte_tokenizer


@pytest.fixture
def pruned(prune, tmp_path):
    code, _, err = prune("--method", "magnitude", "--pattern", "2:4")
    assert code == 0, err
    return tmp_path / "pruned"


@pytest.fixture
def prune_to(prunebench, text, tmp_path):
    """Prunes a model into a folder of the given name, on small calibration."""

    def call(model, name, *arguments):
        code, _, err = prunebench(
            *("prune", model, "--calibration", text, "--n-samples", 4, "--seqlen", 32),
            *("--dtype", "float32", "--device", "cpu", "--out", tmp_path / name, *arguments),
        )
        assert code == 0, err
        return tmp_path / name

    return call


def edit_cell(folder, **changes):
    """Another cell in a `pruning.json`."""
    cell = json.loads((folder / "pruning.json").read_text())["record"]["cell"]
    edit_pruning(folder, cell={**cell, **changes})


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
    weight = load_file(pruned / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    edit_pruning(pruned, n_zeros={"model.layers.0.mlp.up_proj": int((weight == 0).sum())})
    code, out, _ = prunebench("verify", pruned)
    assert code == 0 and "remark (mask)" in out


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: edit_pruning(folder, metrics=with_metric(folder, "sparsity", 0.6)),
        lambda folder: edit_cell(folder, pattern="1:4"),
        lambda folder: edit_pruning(folder, mask_digest=None),
    ],
)
def test_an_edited_pruning_json_is_told(prunebench, pruned, edit):
    edit(pruned)
    code, out, _ = prunebench("verify", pruned)
    assert code == 1 and "problem (checkpoint)" in out


def test_a_record_is_held_against_the_checkpoint_of_its_prune(prunebench, pruned, model, text, tmp_path):
    from suite.cell import Cell
    from suite.planning.preflight import preflight
    from suite.running.model_session import ModelSession
    from suite.running.run_cell import run_cell

    cell = Cell(model=str(model), method="magnitude", settings={}, pattern="2:4", dtype="float32")
    record, items = run_cell(cell, ModelSession(torch.device("cpu"), preflight([cell])))
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


def test_zeros_of_an_earlier_prune_are_no_problem(prunebench, prune_to, model):
    """A lower sparsity prunes what was 0 already; 2:4 leaves zeros outside its mask."""
    first = prune_to(model, "first", "--method", "wanda", "--sparsity", 0.5)
    lower = prune_to(first, "lower", "--method", "magnitude", "--sparsity", 0.3)
    again = prune_to(first, "again", "--method", "sparsegpt", "--sparsity", 0.3)
    semi = prune_to(first, "semi", "--method", "wanda", "--pattern", "2:4")
    for folder in (lower, again, semi):
        code, out, err = prunebench("verify", folder)
        assert code == 0, out + err
        assert "problem (" not in out
    assert "remark (mask)" in prunebench("verify", lower)[1]


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_rows_that_are_zero_before_a_prune_are_no_problem(prunebench, prune_to, model, pattern):
    def clear(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"][:20] = 0
        tensors["model.layers.1.self_attn.q_proj.weight"][:8] = 0

    edit_weights(model, clear)
    folder = prune_to(model, "pruned", "--method", "wanda", "--pattern", pattern)
    code, out, err = prunebench("verify", folder)
    assert code == 0, out + err
    assert "problem (" not in out


@pytest.mark.parametrize(
    "asked",
    [
        ("--method", "wanda", "--sparsity", 0.7),  # floor(0.7 * 16) of each row: 0.6875
        ("--method", "wanda", "--sparsity", 0.05),  # floor(0.05 * 16) of each row: none
        ("--method", "wanda", "--sparsity", 0.7, "--allocation", "owl"),
        ("--method", "sparsegpt", "--sparsity", 0.7, "--set", "block_size=8"),
        ("--method", "llm-barber", "--sparsity", 0.7, "--set", "granularity=block"),
        ("--method", "llm-barber", "--pattern", "2:4"),
        ("--method", "dsnot", "--sparsity", 0.7),
    ],
    ids=lambda asked: "-".join(map(str, asked)).replace("--", ""),
)
def test_whatever_a_method_rounds_to_is_no_problem(prunebench, prune_to, model, asked):
    code, out, err = prunebench("verify", prune_to(model, "pruned", *asked))
    assert code == 0, out + err
    assert "0 problems" in out


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
@pytest.mark.parametrize("pattern", ["0.7", "2:4"])
def test_transposed_weights_and_experts_are_no_problem(prunebench, prune_to, tmp_path, text, family, pattern):
    made = make_model(family)
    made.resize_token_embeddings(256)
    made.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    folder = prune_to(tmp_path / "model", "pruned", "--method", "wanda", "--pattern", pattern)
    again = prune_to(folder, "again", "--method", "magnitude", "--pattern", "0.3")
    for checkpoint in (folder, again):
        code, out, err = prunebench("verify", checkpoint)
        assert code == 0, out + err
        assert "problem (" not in out


def test_a_zero_that_a_reconstruction_made_is_no_problem(prunebench, pruned):
    """`prune` counts such zeros as zeros, and not as pruned."""
    name = "model.layers.0.mlp.up_proj"

    def clear(tensors):
        weight = tensors[f"{name}.weight"]
        weight.view(-1)[int(weight.view(-1).nonzero()[0])] = 0

    edit_weights(pruned, clear)
    edit_pruning(pruned, n_zeros={name: read_pruning(pruned).n_zeros[name] + 1})
    code, out, _ = prunebench("verify", pruned)
    assert code == 0 and "problem (" not in out


def raise_pruned(folder, by):
    """Another count in one of the modules, and the sparsity that follows."""
    modules = json.loads((folder / "pruning.json").read_text())["record"]["modules"]
    (module,) = (module for module in modules if module["module"] == "model.layers.0.mlp.up_proj")
    module["n_pruned"] += by
    gone, n_weights = (sum(module[key] for module in modules) for key in ("n_pruned", "n_weights"))
    edit_pruning(folder, modules=modules, metrics=with_metric(folder, "sparsity", gone / n_weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: edit_pruning(folder, metrics=with_metric(folder, "sparsity", 0.31)),
            "pruning.json contradicts itself: sparsity target-modules: value is 0.31",
        ),
        (lambda folder: edit_cell(folder, pattern="0.37"), "by pattern 0.37"),
        (lambda folder: edit_cell(folder, pattern="0.2"), "by pattern 0.2"),
        (lambda folder: edit_cell(folder, pattern="2:4"), "by 2:4"),
        (lambda folder: edit_cell(folder, pattern="1:99999999999"), "by 1:99999999999"),
        (lambda folder: raise_pruned(folder, 60), "by pattern 0.3 153.6"),
        (lambda folder: raise_pruned(folder, -60), "by pattern 0.3 153.6"),
        (lambda folder: raise_pruned(folder, 400), "and only 256 are 0"),
        (
            lambda folder: edit_pruning(folder, n_zeros={"model.layers.0.mlp.up_proj": 255}),
            "does not fit the weights",
        ),
        (lambda folder: edit_pruning(folder, mask_digest="none"), "lacks its model or its mask_digest"),
    ],
)
def test_counts_that_the_pattern_cannot_have_left_are_told(prunebench, prune_to, model, change, message):
    """Also where there are more zeros than were pruned, which alone is no problem."""
    first = prune_to(model, "first", "--method", "magnitude", "--sparsity", 0.5)
    folder = prune_to(first, "lower", "--method", "magnitude", "--sparsity", 0.3)
    change(folder)
    code, out, _ = prunebench("verify", folder)
    assert code == 1 and "problem (checkpoint)" in out
    assert message in out


def test_weights_that_came_back_are_told_of_a_second_prune(prunebench, prune_to, model):
    first = prune_to(model, "first", "--method", "magnitude", "--sparsity", 0.5)
    folder = prune_to(first, "lower", "--method", "magnitude", "--sparsity", 0.3)

    def restore(tensors):
        weight = tensors["model.layers.0.mlp.up_proj.weight"].view(-1)
        weight[(weight == 0).nonzero()[:200]] = 0.5

    edit_weights(folder, restore)
    code, out, _ = prunebench("verify", folder)
    assert code == 1 and "weights of model.layers.0.mlp.up_proj were pruned, and only 56 are 0" in out


def with_own_code(model):
    """The model as one that comes with its own Python files."""
    (model / "configuration_own.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    (model / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .configuration_own import OwnConfig\n\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    names = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": names}
    (model / "config.json").write_text(json.dumps(config))
    return model


def test_a_checkpoint_with_code_of_its_own_is_loaded_where_that_is_allowed(prunebench, prune_to, model):
    own = with_own_code(model)
    folder = prune_to(own, "pruned", "--method", "wanda", "--sparsity", 0.5, "--trust-remote-code")
    code, out, _ = prunebench("verify", folder)
    assert code == 1 and "--trust-remote-code" in out
    code, out, err = prunebench("verify", folder, "--trust-remote-code")
    assert code == 0, out + err
    assert out.strip() == "0 records; 0 problems, 0 remarks"


def test_a_checkpoint_with_code_of_its_own_is_held_against_a_record(
    prunebench, prune_to, model, text, tmp_path
):
    own = with_own_code(model)
    folder = prune_to(own, "pruned", "--method", "magnitude", "--sparsity", 0.5, "--trust-remote-code")
    asked = ("--perplexity", text, "--seqlen", 32, "--max-tokens", 320, "--task", "none", "--prompts", "none")
    asked += ("--no-speed", "--dtype", "float32", "--trust-remote-code", "--out", tmp_path / "results")
    code, _, err = prunebench("evaluate", folder, *asked)
    assert code == 0, err
    (path,) = [path for path in (tmp_path / "results").rglob("*.json") if "--" in path.name]
    code, out, _ = prunebench("verify", path, "--checkpoint", folder)
    assert code == 1 and "needs Python code of its own" in out
    code, out, _ = prunebench("verify", path, "--checkpoint", folder, "--trust-remote-code")
    assert code == 0, out
