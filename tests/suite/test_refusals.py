"""What a user meets on the first day: unreadable models, templates, tasks and texts, each in one line."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, MambaConfig, PreTrainedTokenizerFast

from suite.cell import Cell
from suite.models.loading import load_model
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from tests.methods.tiny_models import make_model
from tests.suite.conftest import edit_json, refusal
from tests.tiny import byte_tokenizer, write_suite, write_task

PLACEMENTS = ("resident", "onload")
MAGNITUDE = ("--method", "magnitude", "--sparsity", "0.5")


@pytest.fixture
def evaluate(prunebench, text):
    """`prunebench evaluate` on few windows and nothing else, but what is asked for."""

    def call(model, *arguments):
        asked = ["--seqlen", 32, "--max-tokens", 320, "--dtype", "float32"]
        given = {str(argument) for argument in arguments}
        asked += [] if "--perplexity" in given else ["--perplexity", text]
        rest = [] if "--task" in given else ["--task", "none"]
        rest += [] if "--prompts" in given else ["--prompts", "none"]
        rest += [] if "--speed" in given else ["--no-speed"]
        return prunebench("evaluate", model, *asked, *rest, *arguments)

    return call


def perplexity(answer):
    code, out, err = answer
    assert code == 0, err
    return next(metric["value"] for metric in json.loads(out)["metrics"] if metric["name"] == "perplexity")


def warnings(answer):
    code, out, err = answer
    assert code == 0, err
    return json.loads(out)["warnings"]


# ---------------------------------------------------------------- settings that change what a forward returns


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("flag", "value"),
    [("output_attentions", True), ("output_hidden_states", True), ("return_dict", False)],
)
def test_settings_of_what_a_forward_returns_are_set_aside(
    flag, value, placement, prune, evaluate, model, tmp_path
):
    code, _, err = prune("--method", "llm-barber", "--sparsity", "0.5", "--placement", placement)
    assert code == 0, err
    plain = read_pruning(tmp_path / "pruned").record
    dense = perplexity(evaluate(model, "--placement", placement, "--json"))
    shutil.rmtree(tmp_path / "pruned")

    edit_json(model / "config.json", **{flag: value})
    code, _, err = prune("--method", "llm-barber", "--sparsity", "0.5", "--placement", placement)

    assert code == 0, err
    flagged = read_pruning(tmp_path / "pruned").record
    assert flagged.mask_digest == plain.mask_digest
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())[flag] == value
    # With attentions asked for, the library computes attention by other code.
    found = perplexity(evaluate(model, "--placement", placement, "--json"))
    assert found == pytest.approx(dense, rel=1e-6)


def test_a_routers_logits_are_not_asked_for_either(prune, model):
    shutil.rmtree(model)
    make_model("mixtral").save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    edit_json(model / "config.json", output_router_logits=True)
    code, _, err = prune(*MAGNITUDE)
    assert code == 0, err


def test_a_generation_that_returns_more_than_tokens_answers_all_the_same(evaluate, model, tmp_path):
    edit_json(model / "tokenizer_config.json", eos_token="!")
    write_generation_task(tmp_path / "tasks", 4)
    asked = ("--task", "generate", "--task-folder", tmp_path / "tasks", "--out", tmp_path / "r")
    assert evaluate(model, *asked)[0] == 0
    edit_json(model / "generation_config.json", return_dict_in_generate=True, output_scores=True)
    code, _, err = evaluate(model, *asked[:-1], tmp_path / "again")
    assert code == 0, err
    (stored,) = ResultStore(tmp_path / "again").records().records
    assert [task.n for task in stored.record.tasks] == [6]
    assert not [warning for warning in stored.record.warnings if "failed" in warning]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_invalid_generation_config_is_saved_as_it_was(placement, prune, model, tmp_path):
    settings = {"return_dict_in_generate": True, "temperature": 0.6, "max_new_tokens": 500}
    edit_json(model / "generation_config.json", **settings)
    code, _, err = prune(*MAGNITUDE, "--placement", placement)
    assert code == 0, err
    written = json.loads((tmp_path / "pruned" / "generation_config.json").read_text())
    assert {name: written[name] for name in settings} == settings


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_tokenizer_that_cannot_be_saved_is_found_before_the_prune(placement, prune, model, tmp_path):
    edit_json(model / "tokenizer_config.json", chat_template={"a": 1})
    line = refusal(prune(*MAGNITUDE, "--placement", placement))
    assert str(model) in line
    assert "tokenizer, which cannot be saved" in line
    assert not (tmp_path / "pruned").exists()


# ---------------------------------------------------------------- texts


def test_half_a_character_in_a_text_is_named_by_its_line(prune, evaluate, model, tmp_path):
    rows = [json.dumps({"text": "tree lamp rain " * 40}) for _ in range(30)]
    rows[22] = json.dumps({"text": "tree \ud800 rain"})
    text = tmp_path / "half.jsonl"
    text.write_text("\n".join(rows))
    for answer in (
        prune("--method", "wanda", "--sparsity", "0.5", "--calibration", text),
        evaluate(model, "--perplexity", text),
    ):
        line = refusal(answer)
        assert str(text) in line
        assert "line 23" in line
        assert r"\ud800" in line


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_everybody_can_read_a_checkpoint_who_can_read_other_files(placement, prune, tmp_path):
    before = os.umask(0o022)
    try:
        assert prune(*MAGNITUDE, "--placement", placement)[0] == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "pruned").iterdir()}
    assert set(modes.values()) == {0o644}, modes


def test_a_model_with_a_long_path_has_a_record(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    long = tmp_path / ("d" * 88) / ("e" * 88) / ("f" * 90)
    long.parent.mkdir(parents=True)
    shutil.move(tmp_path / "model", long)
    suite.write_text(suite.read_text().replace(str(tmp_path / "model"), str(long)))
    code, _, err = prunebench("run", suite, "--out", "r")
    assert code == 0, err
    assert [stored.record.cell.model for stored in ResultStore(tmp_path / "r").records().records] == [
        str(long)
    ] * 2
    assert prunebench("verify", "r")[0] == 0


def test_long_names_stay_apart_and_short_ones_as_they_are():
    def folder(name):
        return Cell(model=name, method="dense", dtype="float32").folder

    assert folder("org/model") == "org__model"
    assert len(folder("x" * 400)) < 200
    assert folder("x" * 400 + "a") != folder("x" * 400 + "b")


# ---------------------------------------------------------------- lengths and vocabularies


def test_the_length_that_speed_asks_for_is_named(evaluate, model):
    edit_json(model / "config.json", max_position_embeddings=64)
    line = refusal(evaluate(model, "--speed"))
    for word in ("speed", "512", "32", "64", "--no-speed", str(model)):
        assert word in line


def write_generation_task(folder, max_gen_toks, code=""):
    write_task(folder, "generate")
    file = folder / "generate.yaml"
    text = (
        file.read_text().replace("multiple_choice", "generate_until").replace("doc_to_choice: choices\n", "")
    )
    text = text.replace("doc_to_target: answer", 'doc_to_target: "{{choices[answer]}}"')
    head = text[: text.index("metric_list")]
    metric = "metric_list:\n  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n"
    settings = f'generation_kwargs:\n  until: ["\\n"]\n  max_gen_toks: {max_gen_toks}\n'
    file.write_text(head + settings + code + metric)


def test_an_answer_that_fills_all_positions_is_found_before_anything_is_measured(evaluate, model, tmp_path):
    edit_json(model / "config.json", max_position_embeddings=64)
    write_generation_task(tmp_path / "tasks", 80)
    line = refusal(evaluate(model, "--task", "generate", "--task-folder", tmp_path / "tasks"))
    assert "'generate'" in line and "eos_token" in line
    edit_json(model / "tokenizer_config.json", eos_token="!")
    line = refusal(
        evaluate(model, "--task", "generate", "--task-folder", tmp_path / "tasks", "--out", tmp_path / "r")
    )
    for word in ("'generate'", "80", "64", "max_gen_toks", str(model)):
        assert word in line
    assert not (tmp_path / "r").exists()


def test_what_was_measured_before_a_task_failed_is_kept(evaluate, model, tmp_path):
    edit_json(model / "tokenizer_config.json", eos_token="!")
    write_generation_task(tmp_path / "tasks", 4, "process_results: !function scoring.score\n")
    (tmp_path / "tasks" / "scoring.py").write_text("def score(doc, results):\n    return doc['nothing']\n")
    answer = evaluate(model, "--task", "generate", "--task-folder", tmp_path / "tasks", "--json")
    assert perplexity(answer) > 0
    assert any("generate" in warning and "KeyError: 'nothing'" in warning for warning in warnings(answer))


def test_a_tokenizer_that_is_larger_than_the_embedding_is_found_out(prune, evaluate, model, text, tmp_path):
    tiny = load_model(str(model)).model
    tiny.resize_token_embeddings(60)
    tiny.save_pretrained(model)
    (tmp_path / "low.txt").write_text("!!!!!!!!" * 200)

    line = refusal(evaluate(model))
    assert str(text) in line and str(model) in line and "60" in line and "calibration" not in line
    line = refusal(prune("--method", "wanda", "--sparsity", "0.5"))
    assert str(text) in line and str(model) in line and "60" in line
    tasks = write_task(tmp_path / "tasks")
    line = refusal(
        evaluate(model, "--perplexity", tmp_path / "low.txt", "--task", "mine", "--task-folder", tasks)
    )
    for word in ("'mine'", "60", str(model)):
        assert word in line


def test_answers_to_a_task_are_as_long_as_it_asks_and_padded_with_a_token_of_the_model(
    evaluate, model, tmp_path
):
    edit_json(model / "config.json", max_position_embeddings=64)
    edit_json(model / "generation_config.json", max_new_tokens=500)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "!"})
    assert tokenizer.pad_token_id == 256, "the model knows 256"
    tokenizer.save_pretrained(model)
    write_generation_task(tmp_path / "tasks", 4)
    answer = evaluate(model, "--task", "generate", "--task-folder", tmp_path / "tasks", "--json")
    assert not [warning for warning in warnings(answer) if "failed" in warning]
    assert [task["n"] for task in json.loads(answer[1])["tasks"]] == [6]


def test_a_tokenizer_without_its_unknown_token_is_named(prune, evaluate, model):
    words = Tokenizer(WordLevel({"tree": 0, "lamp": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(model)
    for line in (refusal(evaluate(model)), refusal(prune("--method", "wanda", "--sparsity", "0.5"))):
        assert str(model) in line
        assert "UNK" in line


# ---------------------------------------------------------------- chat templates


def several(folder):
    templates = [{"name": name, "template": "{{ messages }}"} for name in ("tools", "search")]
    edit_json(folder / "tokenizer_config.json", chat_template=templates)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no system turn') }}"),
        lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[5].content.upper() }}"),
        several,
    ],
    ids=["raises", "syntax", "index", "several"],
)
def test_a_chat_template_that_fails_is_found_before_anything_runs(
    break_it, prunebench, evaluate, model, tmp_path
):
    break_it(model)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "the tree"}\n')
    prompts = tmp_path / "prompts.jsonl"
    line = refusal(evaluate(model, "--prompts", prompts))
    for word in (str(model), "chat template", "--prompts none"):
        assert word in line
    assert evaluate(model)[0] == 0

    suite = write_suite(tmp_path, methods="magnitude")  # the model anew
    break_it(model)
    suite.write_text(f'{suite.read_text()}[answers]\nprompts = "{prompts}"\n')
    assert refusal(prunebench("run", suite, "--out", "r")) == line


# ---------------------------------------------------------------- unreadable models


def mine(folder, code):
    """The tiny model as one that comes with Python files of its own."""
    (folder / "configuration_mine.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
    )
    (folder / "modeling_mine.py").write_text(code)
    classes = {
        "AutoConfig": "configuration_mine.MineConfig",
        "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
    }
    edit_json(folder / "config.json", model_type="mine", auto_map=classes)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345678\n"


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "tokenizer.json").write_text("{no"), ("tokenizer.json",)),
        (
            lambda f: edit_json(f / "tokenizer.json", model={"type": "BPE", "merges": [["a", 1]]}),
            ("tokenizer",),
        ),
        (lambda f: (f / "tokenizer.json").unlink(), ("tokenizer_config.json", "vocabulary")),
        (lambda f: (f / "config.json").write_text("{no"), ("config.json",)),
        (lambda f: (f / "config.json").write_text("[]"), ("config.json",)),
        (lambda f: edit_json(f / "config.json", hidden_size=64.5), ("config.json", "hidden_size")),
        (
            lambda f: edit_json(f / "config.json", num_attention_heads=0, bos_token_id=0),
            ("config.json", "num_attention_heads is 0"),
        ),
        (
            lambda f: edit_json(f / "config.json", num_attention_heads=-4),
            ("config.json", "num_attention_heads is -4"),
        ),
        (lambda f: edit_json(f / "config.json", dtype="float99"), ("config.json", "float99", "dtype")),
        (
            lambda f: edit_json(f / "config.json", rope_parameters={"rope_type": "su"}),
            ("config.json", "'su'", "rope_type"),
        ),
        (lambda f: edit_json(f / "config.json", model_type="none-such"), ("config.json", "none-such")),
        (lambda f: (f / "model.safetensors").write_text(POINTER), ("model.safetensors", "Git LFS")),
        (lambda f: (f / "tokenizer.json").write_text(POINTER), ("tokenizer.json", "Git LFS")),
        (lambda f: (f / "generation_config.json").write_text("{no"), ("generation_config.json",)),
        (lambda f: (f / "generation_config.json").write_text("[]"), ("generation_config.json",)),
    ],
    ids=[
        *("tokenizer-no-json", "tokenizer-merges", "tokenizer-alone", "config-no-json", "config-a-list"),
        *(
            "float-size",
            "no-heads",
            "minus-heads",
            "dtype",
            "rope",
            "model-type",
            "lfs-weights",
            "lfs-tokenizer",
        ),
        *("generation-no-json", "generation-a-list"),
    ],
)
def test_an_unreadable_model_is_named_with_the_file(break_it, words, everywhere, model):
    break_it(model)
    line = everywhere()
    for word in (*words, str(model)):
        assert word in line
    assert len(line) < 500


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_syntax_error_in_a_models_code_is_named_with_the_file(placement, prune, model):
    mine(model, "import torch\ndef x(:\n")
    line = refusal(prune(*MAGNITUDE, "--placement", placement))
    assert "--trust-remote-code" in line
    line = refusal(prune(*MAGNITUDE, "--placement", placement, "--trust-remote-code"))
    for word in ("invalid syntax", "modeling_mine.py", "line 2", str(model)):
        assert word in line


@pytest.mark.parametrize("command", ["prune", "evaluate", "doctor"])
def test_a_model_whose_structure_cannot_be_read_is_wrong_input(command, prunebench, model, text):
    config = MambaConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    arguments = {
        "prune": (*MAGNITUDE, "--out", "o"),
        "evaluate": ("--perplexity", text, "--seqlen", 32, "--task", "none", "--prompts", "none"),
    }
    line = refusal(prunebench(command, model, *arguments.get(command, ())))
    assert "MambaBlock" in line


def test_a_name_too_long_for_a_path_is_wrong_input(prune, prunebench):
    line = refusal(prunebench("prune", "x" * 300, *MAGNITUDE, "--out", "o"))
    assert "x" * 300 in line


# ---------------------------------------------------------------- tasks


def no_rows(folder):
    (folder / "rows.jsonl").write_text("")


def empty_option(folder):
    rows = [{"question": "tree", "choices": ["rain", "", "fish"], "answer": 0}] * 6
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "mine.yaml"
    file.write_text(file.read_text() + 'target_delimiter: ""\n')


def missing_split(folder):
    file = folder / "mine.yaml"
    file.write_text(file.read_text().replace("test_split: test", "test_split: validation"))


@pytest.mark.parametrize(
    ("break_it", "arguments", "words"),
    [
        (no_rows, (), ("no rows",)),
        (empty_option, (), ("row 0", "empty option")),
        (missing_split, (), ("'validation'", "'test'")),
        (lambda folder: None, ("--num-fewshot", 50), ("50", "6")),
    ],
    ids=["no-rows", "empty-option", "missing-split", "few-examples"],
)
def test_what_is_wrong_with_a_task_is_said_in_words(break_it, arguments, words, evaluate, model, tmp_path):
    folder = write_task(tmp_path / "tasks")
    break_it(folder)
    line = refusal(evaluate(model, "--task", "mine", "--task-folder", folder, *arguments))
    for word in ("'mine'", *words):
        assert word in line


# ---------------------------------------------------------------- checkpoints of others


def test_a_model_of_zeros_is_none_to_measure(evaluate, model):
    tiny = load_model(str(model)).model
    with torch.no_grad():
        for name, parameter in tiny.named_parameters():
            if name.endswith("proj.weight"):
                parameter.zero_()
    tiny.save_pretrained(model)
    line = refusal(evaluate(model))
    assert str(model) in line
    assert "is 0" in line


def test_another_programs_pruning_json_is_not_read(prunebench, evaluate, model):
    (model / "pruning.json").write_text('{"method": "wanda", "sparsity": 0.5}')
    assert any("another program" in warning for warning in warnings(evaluate(model, "--json")))
    code, out, err = prunebench("verify", model)
    assert code == 1, err
    assert "written by prunebench" in out + err


def test_a_damaged_pruning_json_is_refused(prune, evaluate, tmp_path):
    assert prune(*MAGNITUDE)[0] == 0
    file = tmp_path / "pruned" / "pruning.json"
    file.write_text(file.read_text()[:200])
    assert "pruning.json" in refusal(evaluate(tmp_path / "pruned"))


# ---------------------------------------------------------------- the dtype of a checkpoint


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_no_surviving_weight_is_rounded_by_default(stored, placement, prunebench, model, text, tmp_path):
    load_model(str(model)).model.to(stored).save_pretrained(model)
    calibration = ("--calibration", text, "--n-samples", 4, "--seqlen", 32)
    code, _, err = prunebench(
        "prune", model, *MAGNITUDE, *calibration, "--out", "pruned", "--placement", placement
    )
    assert code == 0, err
    before = load_file(model / "model.safetensors")
    after = {}
    for file in (tmp_path / "pruned").glob("*.safetensors"):
        after.update(load_file(file))
    for name, weight in after.items():
        kept = weight != 0
        assert torch.equal(weight[kept].double(), before[name][kept].double())
        if weight.dtype != stored:
            assert "exactly" in err


def test_a_checkpoint_that_was_rounded_says_so(prunebench, model, text):
    calibration = ("--calibration", text, "--n-samples", 4, "--seqlen", 32)
    code, _, err = prunebench(
        "prune", model, *MAGNITUDE, *calibration, "--out", "pruned", "--dtype", "bfloat16"
    )
    assert code == 0
    assert "stored as float32" in err and "rounded" in err and "--dtype float32" in err


def test_a_few_weights_that_were_rounded_are_remarked_too(prunebench, model, text):
    tensors = {name: weight.bfloat16() for name, weight in load_file(model / "model.safetensors").items()}
    norm = "model.norm.weight"
    save_file(
        {**tensors, norm: tensors[norm].float()}, model / "model.safetensors", metadata={"format": "pt"}
    )
    calibration = ("--calibration", text, "--n-samples", 4, "--seqlen", 32, "--dtype", "bfloat16")
    code, _, err = prunebench("prune", model, *MAGNITUDE, *calibration, "--out", "pruned")
    assert code == 0, err
    assert "stored as float32" in err and "those of float32 were rounded" in err


# ---------------------------------------------------------------- the command itself


def test_the_version_is_printed(prunebench):
    code, out, err = prunebench("--version")
    assert (code, err) == (0, "")
    assert out.startswith("prunebench 0.")
