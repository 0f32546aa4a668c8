"""Tasks are lm-eval's, asked of the model in memory, and no batch size changes a score."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from methods.errors import InputError, PruningError
from methods.patching import replaced_forward
from suite.cell import TaskSpec
from suite.evaluation.scoring_model import ScoringModel
from suite.evaluation.task_loading import load_task
from suite.evaluation.task_names import check_task, expand_sets
from suite.evaluation.zero_shot import run_task
from suite.models import load_model
from suite.tasks import TASKS_FOLDER
from tests.tiny import byte_tokenizer, save_tiny_model, tiny_model, write_task

PAIRS = [
    ("the cat", " sat on the mat"),
    ("the cat", " ran"),
    ("the cat", " r"),
    ("the cat", " s"),
    ("a context that is a good deal longer than the others", " yes"),
    ("x", " y"),
    ("", "no context at all"),
    ("the cat", " sat on the mat"),
]


def requests(pairs):
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


@pytest.fixture
def model():
    return tiny_model().eval()


@pytest.fixture
def own_task(tmp_path):
    """A folder with a task and a group of the user's own."""
    folder = write_task(tmp_path / "tasks")
    write_task(folder, "mine_too")
    (folder / "both.yaml").write_text(
        """group: both_of_mine
task: [mine, mine_too]
aggregate_metric_list:
  - metric: acc
    weight_by_size: true
metadata:
  version: 1.0
"""
    )
    return folder


def test_log_likelihoods_are_lm_evals_own_on_the_saved_model(model, tmp_path):
    ours = ScoringModel(model, byte_tokenizer()).loglikelihood(requests(PAIRS))
    saved = load_model(str(save_tiny_model(tmp_path / "saved")))
    theirs = HFLM(
        pretrained=saved.model, tokenizer=saved.tokenizer, batch_size=3, prefix_token_id=0
    ).loglikelihood(requests(PAIRS), disable_tqdm=True)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_a_greedy_continuation_is_recognized(model):
    tokenizer = byte_tokenizer()
    prompt = tokenizer("the cat", return_tensors="pt").input_ids
    with torch.no_grad():
        written = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False, pad_token_id=0
        )[0, prompt.shape[1] :]
    scoring = ScoringModel(model, tokenizer)
    context = prompt[0].tolist()
    other = [*written.tolist()[:2], (int(written[2]) + 1) % 256]
    scores = scoring._loglikelihood_tokens([(None, context, written.tolist()), (None, context, other)])
    assert [greedy for _, greedy in scores] == [True, False]


@pytest.mark.parametrize("tokens_per_batch", [1, 40, 10_000])
def test_the_size_of_a_batch_changes_no_score(model, tokens_per_batch):
    expected = ScoringModel(model, byte_tokenizer()).loglikelihood(requests(PAIRS))
    scoring = ScoringModel(model, byte_tokenizer())
    scoring.tokens_per_batch = tokens_per_batch
    found = scoring.loglikelihood(requests(PAIRS))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_where_memory_runs_out_every_request_is_still_scored_once(model):
    expected = ScoringModel(model, byte_tokenizer()).loglikelihood(requests(PAIRS))
    scored, remarks = [], []
    scoring = ScoringModel(model, byte_tokenizer(), on_scored=scored.append, on_remark=remarks.append)
    body = model.base_model
    forward = body.forward

    def short_of_memory(input_ids, **kwargs):
        if input_ids.numel() > 120:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **kwargs)

    with replaced_forward(body, short_of_memory):
        found = scoring.loglikelihood(requests(PAIRS))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert remarks == [f"memory ran out; it went on with batches of {n} tokens" for n in (165, 55)]
    assert sum(scored) == len(PAIRS)


def test_a_too_long_context_is_cut_from_the_left_as_lm_eval_does(model):
    long = [("word " * 40, " end")]
    scoring = ScoringModel(model, byte_tokenizer())
    scoring._max_length = 32
    theirs = HFLM(pretrained=model, tokenizer=byte_tokenizer(), prefix_token_id=0, max_length=32)
    found, expected = (m.loglikelihood(requests(long), disable_tqdm=True)[0][0] for m in (scoring, theirs))
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_tokenizer_is_left_alone(model):
    tokenizer = byte_tokenizer()
    ScoringModel(model, tokenizer)
    assert tokenizer.pad_token is None


def test_a_task_of_the_users_own_is_asked_item_by_item(own_task, tmp_path):
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    task = load_task(TaskSpec(name="mine", folder=str(own_task), limit=5))
    assert task.n_requests == 15
    (run,) = run_task(loaded, task)
    assert (run.protocol, run.version, run.main_metric) == ("mine-0shot", "3.0", "acc")
    by_name = {score.metric: score for score in run.scores}
    values = [item.scores["acc"] for item in run.items]
    assert len(values) == 5
    assert by_name["acc"].value == pytest.approx(sum(values) / 5)
    assert by_name["acc"].higher_is_better
    assert len({item.doc_hash for item in run.items}) == 5
    assert run_task(loaded, task) == [run], "asking twice gives the same"


def test_examples_are_shown_where_they_are_asked_for(own_task, tmp_path):
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    runs = [
        run_task(loaded, load_task(TaskSpec(name="mine", folder=str(own_task), num_fewshot=n)))[0]
        for n in (0, 2)
    ]
    assert [run.protocol for run in runs] == ["mine-0shot", "mine-2shot"]
    assert [i.doc_hash for i in runs[0].items] == [i.doc_hash for i in runs[1].items]
    assert [i.prompt_hash for i in runs[0].items] != [i.prompt_hash for i in runs[1].items]


def test_every_model_is_shown_the_same_examples(own_task, tmp_path):
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    task = load_task(TaskSpec(name="mine", folder=str(own_task), num_fewshot=2))
    assert run_task(loaded, task) == run_task(loaded, task)


def test_embeddings_that_are_stored_apart_stay_apart(tmp_path, own_task):
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    head = torch.nn.Parameter(torch.zeros_like(loaded.model.lm_head.weight))
    loaded.model.lm_head.weight = head
    run_task(loaded, load_task(TaskSpec(name="mine", folder=str(own_task))))
    assert loaded.model.lm_head.weight is head
    assert "tie_weights" not in vars(loaded.model)


def test_an_answer_longer_than_the_model_is_an_error_not_a_score(model):
    scoring = ScoringModel(model, byte_tokenizer())
    scoring._max_length = 32
    with pytest.raises(PruningError, match="an answer of 100 tokens, and the model has 32 positions"):
        scoring.loglikelihood(requests([("a", " b"), ("a", "x" * 100)]))


def test_what_lm_eval_prints_is_not_data(own_task, tmp_path, capsys):
    yaml = own_task / "mine.yaml"
    yaml.write_text(yaml.read_text().replace("metric: acc_norm\n    aggregation: mean", "metric: mcc"))
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    capsys.readouterr()
    (run,) = run_task(loaded, load_task(TaskSpec(name="mine", folder=str(own_task))))
    assert "mcc" in [score.metric for score in run.scores]
    assert capsys.readouterr().out == ""


def test_a_group_has_its_tasks_and_its_own_score(own_task, tmp_path):
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    runs = run_task(loaded, load_task(TaskSpec(name="both_of_mine", folder=str(own_task))))
    assert [run.task for run in runs] == ["mine", "mine_too", "both_of_mine"]
    accuracies = [run.scores[0].value for run in runs]
    assert accuracies[2] == pytest.approx((accuracies[0] + accuracies[1]) / 2)
    assert runs[2].items == ()
    assert [run.n for run in runs] == [6, 6, 12]


def test_questions_are_known_by_their_digest_before_they_are_asked(own_task):
    before = load_task(TaskSpec(name="mine", folder=str(own_task))).digests
    assert load_task(TaskSpec(name="mine", folder=str(own_task))).digests == before
    yaml = own_task / "mine.yaml"
    whole = yaml.read_text()
    yaml.write_text(whole.replace("{{question}}", "Q: {{question}}"))
    assert load_task(TaskSpec(name="mine", folder=str(own_task))).digests != before
    yaml.write_text(whole)
    rows = (own_task / "rows.jsonl").read_text()
    (own_task / "rows.jsonl").write_text(rows.replace("moon 4", "the moon 4"))
    assert load_task(TaskSpec(name="mine", folder=str(own_task))).digests != before
    assert load_task(TaskSpec(name="mine", folder=str(own_task), limit=1)).digests != before


def test_the_digest_of_questions_does_not_depend_on_where_the_task_lies(tmp_path):
    text = (TASKS_FOLDER / "offline_agreement.yaml").read_text()
    digests = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.yaml").write_text(text.replace("task: offline_agreement", "task: mine"))
        digests.append(load_task(TaskSpec(name="mine", limit=3, folder=str(tmp_path / name))).digests)
    assert digests[0] == digests[1]
    (tmp_path / "one" / "mine.yaml").write_text(
        text.replace("task: offline_agreement", "task: mine") + "fewshot_delimiter: x\n"
    )
    changed = load_task(TaskSpec(name="mine", limit=3, folder=str(tmp_path / "one"))).digests
    assert changed != digests[0]


def test_a_set_stands_for_its_tasks():
    assert expand_sets(["offline", "boolq"])[-2:] == ["offline_agreement", "boolq"]
    assert len(expand_sets(["paper7"])) == 7


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(
        InputError, match=r"unknown task 'hellaswga'; did you mean .*'hellaswag'.*offline_cloze"
    ):
        check_task("hellaswga")


def test_an_unknown_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"task folder '.*nowhere' does not exist"):
        check_task("mine", str(tmp_path / "nowhere"))


def test_without_a_hub_it_is_said_what_works(monkeypatch):
    monkeypatch.setattr("suite.hub.hub_answers", lambda: False)
    with pytest.raises(
        InputError, match=r"'boolq' needs its data set from the hub, .* without: offline_cloze"
    ):
        load_task(TaskSpec(name="boolq"))


def one_line_about(spec):
    with pytest.raises(InputError) as caught:
        load_task(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_that_is_wrong_costs_one_line_and_is_no_matter_of_the_hub(own_task, monkeypatch):
    monkeypatch.setattr("suite.hub.hub_answers", lambda: False)
    spec = TaskSpec(name="mine", folder=str(own_task))
    too_many = one_line_about(spec.model_copy(update={"num_fewshot": 70}))
    assert too_many.startswith("task 'mine' cannot be loaded: ")
    yaml = own_task / "mine.yaml"
    whole = yaml.read_text()
    yaml.write_text(f"{whole}unsafe_code: true\n")
    assert "runs code that a model wrote" in one_line_about(spec)
    yaml.write_text(whole.replace("doc_to_choice: choices", "doc_to_choice: choice"))
    assert one_line_about(spec).startswith("task 'mine' cannot be loaded: ")
    yaml.write_text(whole)
    (own_task / "rows.jsonl").write_text("{not json\n")
    assert one_line_about(spec).startswith("task 'mine' cannot be loaded: ")
    yaml.write_text("task: [mine\n")
    assert "mine.yaml' cannot be read" in one_line_about(spec.model_copy(update={"name": "mine_"}))
