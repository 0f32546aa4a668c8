"""A context that does not fit the model is cut, as lm-eval does it; how many were is counted and told."""

import json
from dataclasses import replace

import pytest

from methods.base import Placement
from suite.cell import TaskSpec
from suite.evaluation.lm_eval_tasks.loading import load_task
from suite.evaluation.lm_eval_tasks.zero_shot import run_task
from suite.models.loading import load_model
from tests.tiny import byte_tokenizer, tiny_model, write_task

N_POSITIONS = 64
CHOICES = [" a", " b", " c"]
ONE_SCORE = ("  - metric: acc_norm\n    aggregation: mean\n    higher_is_better: true\n", "")


@pytest.fixture
def short_model(tmp_path):
    """A folder with a model of 64 positions; one token a byte."""
    model = tiny_model()
    model.config.max_position_embeddings = N_POSITIONS
    model.save_pretrained(tmp_path / "short")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "!"
    tokenizer.save_pretrained(tmp_path / "short")
    return tmp_path / "short"


def asked_with(folder, lengths, *changes, name="mine"):
    """A task whose questions have as many tokens as `lengths` says."""
    write_task(folder, name)
    rows = [{"question": "x" * n, "choices": CHOICES, "answer": 0} for n in lengths]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yaml = folder / f"{name}.yaml"
    text = yaml.read_text().replace("rows.jsonl", f"{name}.jsonl")
    text = text.replace("doc_to_choice: choices", 'doc_to_choice: choices\ntarget_delimiter: ""')
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    yaml.write_text(text)
    return TaskSpec(name=name, folder=str(folder))


def generating(n_tokens):
    return (
        ("output_type: multiple_choice", "output_type: generate_until"),
        ("doc_to_choice: choices\n", ""),
        ("doc_to_target: answer", 'doc_to_target: "{{choices[answer]}}"'),
        ("  - metric: acc\n", "  - metric: exact_match\n"),
        ONE_SCORE,
        ("metric_list:", f"generation_kwargs: {{until: ['?'], max_gen_toks: {n_tokens}}}\nmetric_list:"),
    )


ROLLING = (
    ("output_type: multiple_choice", "output_type: loglikelihood_rolling"),
    ("doc_to_choice: choices\n", ""),
    ("doc_to_target: answer", 'doc_to_target: "{{question}}"'),
    ONE_SCORE,
    ("metric: acc\n    aggregation: mean", "metric: byte_perplexity\n    aggregation: weighted_perplexity"),
)


def remarks_on(model, spec, weights="resident"):
    remarks = []
    loaded = replace(load_model(str(model)), placement=Placement(weights=weights))
    run_task(loaded, load_task(spec), on_remark=remarks.append)
    return remarks


LOST = "of 15 requests were longer than the model's 64 positions and lost the start of their context"


@pytest.mark.parametrize("weights", ["resident", "onload"])
@pytest.mark.parametrize("tokens_per_batch", [1, 2048])
def test_what_was_cut_is_counted_once(short_model, tmp_path, monkeypatch, tokens_per_batch, weights):
    monkeypatch.setattr("suite.evaluation.scoring.continuations.HOST_TOKENS", tokens_per_batch)
    # The model reads a question and the first of an answer's two tokens: 63 and 1 fit, 64 and 1 do not.
    spec = asked_with(tmp_path / "tasks", [10, 63, 64, 200, 5000])
    assert remarks_on(short_model, spec, weights) == [f"9 {LOST}"]


def test_nothing_is_said_where_everything_fits(short_model, tmp_path):
    assert remarks_on(short_model, asked_with(tmp_path / "tasks", [10, 63])) == []


def test_one_request_was(short_model, tmp_path):
    spec = asked_with(tmp_path / "tasks", [80, 10], ("doc_to_target: answer", "doc_to_target: 0"))
    yaml = tmp_path / "tasks" / "mine.yaml"
    yaml.write_text(yaml.read_text().replace("doc_to_choice: choices", 'doc_to_choice: [" a"]'))
    assert remarks_on(short_model, spec) == [
        "1 of 2 requests was longer than the model's 64 positions and lost the start of its context"
    ]


@pytest.mark.parametrize("weights", ["resident", "onload"])
def test_prompts_leave_room_for_the_answer(short_model, tmp_path, weights):
    # More than the eight that make a batch of lm-eval's, whose short prompts are padded to the longest.
    spec = asked_with(tmp_path / "tasks", [44, 45, 90, *[10] * 8], *generating(20))
    assert remarks_on(short_model, spec, weights) == [
        "2 of 11 requests were longer than the model's 64 positions less the 20 kept for an answer "
        "and lost the start of their context"
    ]
    assert remarks_on(short_model, asked_with(tmp_path / "tasks", [44], *generating(20)), weights) == []


def test_examples_may_be_what_is_too_long(short_model, tmp_path):
    spec = asked_with(tmp_path / "tasks", [20] * 5)
    assert remarks_on(short_model, spec) == []
    assert remarks_on(short_model, spec.model_copy(update={"num_fewshot": 3})) == [f"15 {LOST}"]


def test_a_text_that_is_read_in_windows_loses_nothing(short_model, tmp_path):
    assert remarks_on(short_model, asked_with(tmp_path / "tasks", [10, 300], *ROLLING)) == []


@pytest.mark.parametrize("changes", [(), generating(20)])
def test_it_is_counted_anew_for_every_model(short_model, tmp_path, changes):
    loaded, task = load_model(str(short_model)), load_task(asked_with(tmp_path / "tasks", [10, 80], *changes))
    remarks = ([], [])
    for of_model in remarks:
        run_task(loaded, task, on_remark=of_model.append)
    assert remarks[0] == remarks[1] != []


def test_in_a_group_the_task_is_named(short_model, tmp_path):
    folder = tmp_path / "tasks"
    for name, length in (("fits", 10), ("mine", 70), ("other", 80)):
        asked_with(folder, [length] * 5, name=name)
    (folder / "all.yaml").write_text("group: all\ntask: [fits, mine, other]\n")
    spec = TaskSpec(name="all", folder=str(folder))
    assert remarks_on(short_model, spec) == [f"mine: 15 {LOST}", f"other: 15 {LOST}"]


def test_the_record_and_the_report_say_it(prunebench, short_model, text, tmp_path):
    spec = asked_with(tmp_path / "tasks", [100] * 5)
    code, _, err = prunebench(
        *("evaluate", short_model, "--perplexity", text, "--seqlen", 32, "--max-tokens", 64, "--no-speed"),
        *("--prompts", "none", "--dtype", "float32", "--task", "mine", "--task-folder", spec.folder),
        *("--out", "results"),
    )
    assert code == 0, err
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results").rglob("*.json"))
    assert record["warnings"] == [f"mine: 15 {LOST}"]
    assert f"mine: 15 {LOST}" in err
    assert prunebench("report", "results", "--out", "report.html")[0] == 0
    html = (tmp_path / "report.html").read_text().replace("&#39;", "'")
    assert f"mine: 15 {LOST}" in html
