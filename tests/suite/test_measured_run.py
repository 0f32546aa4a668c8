"""A run that measures everything: resumed, repeated, and with inputs that were changed in between."""

import json

import pytest

from suite.results import ResultStore
from tests.suite.conftest import refusal
from tests.tiny import write_measured_suite

TIMED = ("seconds", "bytes", "per_second", "joules")


@pytest.fixture
def suite(tmp_path):
    return write_measured_suite(tmp_path, "magnitude wanda")


def measured(folder):
    """Method -> what its record says, but for times and memory."""
    records = {s.record.cell.method: s.record for s in ResultStore(folder).records().records}
    return {
        method: (
            [m for m in record.metrics if not m.name.endswith(TIMED)],
            record.windows,
            record.divergences,
            record.tasks,
            record.answers,
            record.mask_digest,
        )
        for method, record in records.items()
    }


def test_it_does_not_matter_whether_the_dense_cell_ran_in_the_same_process(prunebench, suite, tmp_path):
    code, _, err = prunebench("run", suite, "--out", "whole")
    assert code == 0, err
    for method in ("wanda", "magnitude", "dense"):
        assert prunebench("run", suite, "--out", "parts", "--only", method)[0] == 0
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    phases = [
        [phase.name for phase in s.record.phases]
        for s in ResultStore(tmp_path / "parts").records().records
        if s.record.cell.method == "wanda"
    ]
    assert "dense reference" in phases[0]


def test_a_record_of_other_prompts_or_questions_is_stale(prunebench, suite, tmp_path):
    prunebench("run", suite, "--out", "runs")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "the moon"}\n{"prompt": "rain and moon"}\n')
    _, out, err = prunebench("run", suite, "--out", "runs", "--json")
    assert json.loads(out)["kept"] == 3
    assert err.count("prompts.jsonl were changed since") == 3
    _, out, _ = prunebench("run", suite, "--out", "runs", "--json", "--existing", "rerun-stale")
    assert json.loads(out)["finished"] == 3
    rows = tmp_path / "tasks" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("tree 0 is", "tree 0 was"))
    _, _, err = prunebench("run", suite, "--out", "runs")
    assert err.count("the questions of mine were changed since") == 3


def test_records_without_the_new_measurements_are_still_found(prunebench, suite, tmp_path):
    text = suite.read_text()
    plain = tmp_path / "plain.toml"
    plain.write_text(text.partition("[[tasks]]")[0].replace("divergence = true\n", ""))
    prunebench("run", plain, "--out", "runs")
    _, out, _ = prunebench("run", plain, "--out", "runs", "--dry-run", "--json")
    assert {cell["state"] for cell in json.loads(out)} == {"complete"}
    _, out, _ = prunebench("run", suite, "--out", "runs", "--dry-run", "--json")
    assert {cell["state"] for cell in json.loads(out)} == {"missing"}


def test_a_dry_run_says_what_the_plan_will_take(prunebench, suite, tmp_path):
    code, out, err = prunebench("run", suite, "--dry-run")
    assert code == 0
    assert "3 of 3 cells would run, in about " in err
    assert "GiB of host memory" in err
    _, out, _ = prunebench("run", suite, "--dry-run", "--json")
    dense, magnitude, wanda = (cell["estimated_seconds"] for cell in json.loads(out))
    assert 0 < dense <= magnitude < wanda
    text = suite.read_text().replace(str(tmp_path / "model"), "somebody/nowhere")
    suite.write_text(text)
    _, _, err = prunebench("run", suite, "--dry-run")
    assert "no estimate, as the model is not on this machine yet" in err


def test_a_model_without_a_tokenizer_can_be_asked_nothing(prunebench, suite, tmp_path):
    for path in (tmp_path / "model").glob("token*"):
        path.unlink()
    line = refusal(prunebench("run", suite))
    assert "has no tokenizer" in line
    assert not (tmp_path / "results").exists()


def test_what_does_not_fit_the_model_is_found_before_anything_runs(prunebench, suite, tmp_path):
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 40}))
    text = suite.read_text()
    suite.write_text(text.replace("new_tokens = 2\n", "new_tokens = 60\n"))
    line = refusal(prunebench("run", suite))
    assert (
        "measuring its speed reads 8 tokens and generates 60, but LlamaForCausalLM has 40 positions" in line
    )
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "word " * 20}) + "\n")
    suite.write_text(text)
    assert "longer than the 40 positions" in refusal(prunebench("run", suite))


def test_one_task_asked_twice_is_refused(prunebench, suite, tmp_path):
    suite.write_text(
        f'{suite.read_text()}[[tasks]]\nname = "mine"\nfolder = "{tmp_path}/tasks"\nnum_fewshot = 0\n'
    )
    assert "both contain mine-0shot: remove one" in refusal(prunebench("run", suite))


def test_tasks_are_listed(prunebench):
    _, out, _ = prunebench("list", "tasks")
    assert "offline_cloze" in out
    assert "paper7" in out
