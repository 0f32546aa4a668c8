"""Tasks are lm-eval's, asked of the model in memory, and no batch size changes a score."""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from methods.base import Placement
from methods.errors import InputError
from methods.structure.forward_override import replaced_forward
from suite.cell import TaskSpec
from suite.evaluation.lm_eval_tasks.loading import load_task
from suite.evaluation.lm_eval_tasks.names import check_task, expand_sets
from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel
from suite.evaluation.lm_eval_tasks.zero_shot import prepare_task, run_task
from suite.evaluation.offline_tasks.catalogue import TASKS_FOLDER
from suite.evaluation.scoring import continuations, shared_prefixes
from suite.models.loading import load_model, load_skeleton
from tests.suite.test_task_contexts import ROLLING, asked_with, generating
from tests.tiny import (
    byte_tokenizer,
    leading_tokenizer,
    save_tiny_model,
    short_of_memory,
    tiny_model,
    write_task,
)

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
    scoring.scorer.tokens_per_batch = tokens_per_batch
    found = scoring.loglikelihood(requests(PAIRS))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_where_memory_runs_out_every_request_is_still_scored_once(model):
    expected = ScoringModel(model, byte_tokenizer()).loglikelihood(requests(PAIRS))
    scored, remarks = [], []
    scoring = ScoringModel(model, byte_tokenizer(), on_scored=scored.append, on_remark=remarks.append)
    scoring.scorer.shares = False
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


def test_the_tokenizer_is_left_alone_and_copied_once(model):
    tokenizer = byte_tokenizer()
    copies = [ScoringModel(one, tokenizer).tokenizer for one in (model, tiny_model())]
    assert tokenizer.pad_token is None
    assert copies[0] is copies[1] is not tokenizer
    assert copies[0].pad_token is not None


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


def test_the_right_answer_is_judged_as_the_model_would_produce_it(own_task, tmp_path):
    """Held against logits of whole sequences: rank and loss of the right option, and the greedy tokens."""
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    task = load_task(TaskSpec(name="mine", folder=str(own_task), limit=5))
    (run,) = run_task(loaded, task)
    (built,) = task.tree["tasks"].values()
    assert run.shared
    for doc_id, item in enumerate(run.items):
        request = next(
            r for r in built.instances if r.doc_id == doc_id and r.idx == built.doc_to_target(r.doc)
        )
        context, answer = (loaded.tokenizer(text).input_ids for text in request.args)
        with torch.no_grad():
            logits = loaded.model(torch.tensor([context + answer])).logits[0, len(context) - 1 : -1]
        rows = list(zip(logits, answer, strict=True))
        losses = [float(row.logsumexp(-1) - row[token]) for row, token in rows]
        ranks = [int((row > row[token]).sum()) + 1 for row, token in rows]
        assert item.right_answer.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        assert item.right_answer.rank == max(ranks)
        assert item.right_answer.produced == (logits.argmax(-1).tolist() == answer)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ((("doc_to_target: answer", "doc_to_target: '{{[0, 2]}}'"),), {0, 2}),
        ((("doc_to_target: answer", "doc_to_target: '{{choices[1]}}'"),), {1}),
        (
            (
                ("output_type: multiple_choice", "output_type: loglikelihood"),
                ("doc_to_choice: choices\n", ""),
                ("doc_to_target: answer", "doc_to_target: '{{choices[0]}}'"),
            ),
            {0},
        ),
        (ROLLING, set()),
    ],
    ids=["several", "by text", "no options", "texts"],
)
def test_right_answers_are_found_however_a_task_names_them(tmp_path, marked_tokenizer, changes, right):
    spec = asked_with(tmp_path / "tasks", [5, 9], *changes)
    loaded, task = loaded_with(marked_tokenizer, tmp_path / "model"), load_task(spec)
    (run,) = run_task(loaded, task)
    (built,) = task.tree["tasks"].values()
    for doc_id, item in enumerate(run.items):
        of_question = [r for r in built.instances if r.doc_id == doc_id and r.idx in right]
        if not right:
            assert item.right_answer is None
            continue
        n_tokens = [len(loaded.tokenizer(r.args[1]).input_ids) for r in of_question]
        losses = [-r.resps[0][0] / n for r, n in zip(of_question, n_tokens, strict=True)]
        assert item.right_answer.loss == pytest.approx(min(losses))
        assert item.right_answer.produced == any(r.resps[0][1] for r in of_question)


def test_every_model_is_shown_the_same_examples(own_task, tmp_path):
    loaded = load_model(str(save_tiny_model(tmp_path / "model")))
    task = load_task(TaskSpec(name="mine", folder=str(own_task), num_fewshot=2))
    assert run_task(loaded, task) == run_task(loaded, task)


LENGTHS = [5, 40, 12, 33, 8, 21, 100]
KINDS = {"choices": (), "texts": ROLLING, "answers": generating(4)}
KINDS_OF_TASK = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)


def loaded_with(tokenizer, folder, n_positions=64, weights="resident"):
    """A tiny model whose longest input is shorter than some of the questions."""
    model = tiny_model()
    model.resize_token_embeddings(257)
    model.config.max_position_embeddings = n_positions
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(load_model(str(folder)), placement=Placement(weights=weights))


@pytest.fixture
def marked_tokenizer():
    """One that lm-eval can stop writing with."""
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "!"
    return tokenizer


def draw_weights(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)


def all_of(loaded, task, n_rows=None):
    """Whatever can be seen of a model being asked a task, answers first; memory holds `n_rows` sequences."""
    layer = loaded.model.base_model.layers[0]
    shapes, scored, remarks = [], [], []
    continuations._TREES_READ.pop(loaded.model, None)  # what is known of a model saves it a trial
    with (
        nullcontext() if n_rows is None else short_of_memory(layer, n_rows),
        layer.register_forward_pre_hook(lambda module, args: shapes.append(args[0].shape)),
    ):
        runs = run_task(loaded, task, on_scored=scored.append, on_remark=remarks.append)
    answers = [request.resps for one in task.tree["tasks"].values() for request in one.instances]
    return answers, runs, shapes, scored, remarks


@KINDS_OF_TASK
@pytest.mark.parametrize("weights", ["resident", "onload"])
def test_what_is_prepared_once_for_all_models_changes_nothing(tmp_path, marked_tokenizer, changes, weights):
    spec = asked_with(tmp_path / "tasks", LENGTHS, *changes).model_copy(update={"num_fewshot": 1})
    loaded = loaded_with(marked_tokenizer, tmp_path / "model", weights=weights)
    task = load_task(spec)
    answers = []
    for seed in range(3):
        draw_weights(loaded.model, seed)
        found = all_of(loaded, task)
        assert found == all_of(loaded, load_task(spec))
        answers.append(found[0])
    assert answers[0] != answers[1] != answers[2], "they are other models"


@KINDS_OF_TASK
def test_a_model_is_asked_without_building_or_tokenizing_what_the_preflight_or_another_one_did(
    tmp_path, marked_tokenizer, changes, monkeypatch
):
    loaded = loaded_with(marked_tokenizer, tmp_path / "model")
    spec = asked_with(tmp_path / "tasks", LENGTHS, *changes).model_copy(update={"num_fewshot": 1})
    first = run_task(loaded, load_task(spec))
    task = load_task(spec)
    skeleton = load_skeleton(str(tmp_path / "model"))
    prepare_task(skeleton.model, skeleton.tokenizer, task)
    calls = []

    def count(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, **kwargs: calls.append(name) or function(*args, **kwargs)
        )

    for owner, name in [
        *((ConfigurableTask, name) for name in ("build_all_requests", "fewshot_context")),
        *((HFLM, name) for name in ("tok_encode", "tok_batch_encode", "_encode_pair")),
    ]:
        count(owner, name)
    assert run_task(loaded, task) == first
    # Where text is generated lm-eval sorts the prompts by their tokens, and pads them eight by eight.
    n = len(LENGTHS)
    assert calls == (["tok_encode"] * n + ["tok_batch_encode"] if changes == KINDS["answers"] else [])


@pytest.mark.parametrize("changes", [(), ROLLING], ids=["choices", "texts"])
def test_memory_that_ran_out_for_one_model_is_there_for_the_next(
    tmp_path, marked_tokenizer, changes, monkeypatch
):
    monkeypatch.setattr(shared_prefixes, "ROW_TOKENS", 16)  # so that there are more than two rows
    spec = asked_with(tmp_path / "tasks", LENGTHS, *changes)
    loaded, task = loaded_with(marked_tokenizer, tmp_path / "model"), load_task(spec)
    unhurt = all_of(loaded, load_task(spec))
    short = all_of(loaded, task, n_rows=2)
    assert short == all_of(loaded, load_task(spec), n_rows=2)
    assert any("memory ran out" in remark for remark in short[-1])
    assert all_of(loaded, task) == unhurt


def test_what_failed_in_the_middle_leaves_no_answers_behind(tmp_path, marked_tokenizer):
    spec = asked_with(tmp_path / "tasks", LENGTHS)
    loaded, task = loaded_with(marked_tokenizer, tmp_path / "model"), load_task(spec)
    with pytest.raises(torch.OutOfMemoryError):
        all_of(loaded, task, n_rows=0)
    assert all_of(loaded, task) == all_of(loaded, load_task(spec))


@pytest.mark.parametrize("changes", [(), ROLLING], ids=["choices", "texts"])
def test_two_tokenizers_and_two_lengths_of_input_do_not_mix(tmp_path, marked_tokenizer, changes):
    spec = asked_with(tmp_path / "tasks", LENGTHS, *changes)
    one = loaded_with(marked_tokenizer, tmp_path / "one")
    other = loaded_with(leading_tokenizer(), tmp_path / "other")
    longer = replace(loaded_with(marked_tokenizer, tmp_path / "longer", 128), tokenizer=one.tokenizer)
    task = load_task(spec)
    found = [all_of(loaded, task) for loaded in (one, other, longer, one, other, longer)]
    assert found[:3] == found[3:] == [all_of(loaded, load_task(spec)) for loaded in (one, other, longer)]
    assert len({repr(answers) for answers, *_ in found}) == 3, "the weights are equal, the tokens are not"


def test_a_task_holds_on_to_no_model_and_no_tokenizer(tmp_path, marked_tokenizer):
    loaded = loaded_with(marked_tokenizer, tmp_path / "model")
    task = load_task(asked_with(tmp_path / "tasks", LENGTHS))
    run_task(loaded, task)
    gone = [weakref.ref(loaded.model), weakref.ref(loaded.tokenizer)]
    del loaded
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), leading_tokenizer(), leading_tokenizer(2)])
def test_requests_are_tokenized_as_lm_eval_does_it(tokenizer, monkeypatch):
    tokenizer.add_special_tokens({"eos_token": "!"})
    model = tiny_model()
    pairs = [
        *PAIRS,
        ("blanks at the end  ", "yes"),
        ("", "!starts with it"),
        ("<s>marked", " x"),
        ("", "<s>x"),
    ]
    texts = ["a short one", "a text of several windows " * 9, "!", "<s>marked", ""]
    ours, theirs = ScoringModel(model, tokenizer), HFLM(pretrained=model, tokenizer=tokenizer)
    ours._max_length = theirs._max_length = 50
    noted = []

    def note(self, requests, **settings):
        noted.extend((context, continuation) for _, context, continuation in requests)
        return [(0.0, False)] * len(requests)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", note)
    theirs.loglikelihood(requests(pairs), disable_tqdm=True)
    assert [ours._tokenized(*pair) for pair in pairs] == noted
    del noted[:]
    theirs.loglikelihood_rolling(requests([(text,) for text in texts]), disable_tqdm=True)
    assert [window for text in texts for window in ours._windows(text)] == noted


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
    too_long = requests([("a", " b"), ("a", "x" * 100)])
    for ask in (scoring.loglikelihood, partial(scoring.prepare, "loglikelihood")):
        with pytest.raises(InputError, match="is 100 tokens long; this model can score 1 to 32"):
            ask(too_long)


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
    monkeypatch.setattr("suite.data.hub.hub_answers", lambda: False)
    with pytest.raises(
        InputError, match=r"'boolq' needs its data set from the hub, .* work offline: offline_cloze"
    ):
        load_task(TaskSpec(name="boolq"))


def one_line_about(spec):
    with pytest.raises(InputError) as caught:
        load_task(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_that_is_wrong_costs_one_line_and_is_no_matter_of_the_hub(own_task, monkeypatch):
    monkeypatch.setattr("suite.data.hub.hub_answers", lambda: False)
    spec = TaskSpec(name="mine", folder=str(own_task))
    too_many = one_line_about(spec.model_copy(update={"num_fewshot": 70}))
    assert too_many.startswith("task 'mine': 70 examples were asked for before each question")
    yaml = own_task / "mine.yaml"
    whole = yaml.read_text()
    yaml.write_text(f"{whole}unsafe_code: true\n")
    assert "runs code written by the model" in one_line_about(spec)
    yaml.write_text(whole.replace("doc_to_choice: choices", "doc_to_choice: choice"))
    assert one_line_about(spec).startswith("task 'mine' cannot be loaded: ")
    yaml.write_text(whole)
    (own_task / "rows.jsonl").write_text("{not json\n")
    assert one_line_about(spec).startswith("task 'mine' cannot be loaded: ")
    yaml.write_text("task: [mine\n")
    assert "mine.yaml' cannot be read" in one_line_about(spec.model_copy(update={"name": "mine_"}))
