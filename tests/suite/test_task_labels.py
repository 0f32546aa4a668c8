"""A row whose label stands for none of its options is refused, and no other one is."""

import json
from pathlib import Path

import pytest

from methods.errors import InputError
from suite.cell import TaskSpec
from suite.evaluation.lm_eval_tasks.loading import load_task
from tests.suite.conftest import refusal
from tests.tiny import write_task

OPTIONS = ["tree", "lamp", "rain"]


@pytest.fixture
def labelled(tmp_path):
    """Writes a task with these labels, and gives what names it."""

    def write(labels, *changes, **how):
        folder = write_task(tmp_path / "tasks")
        rows = [
            {"question": f"{number} is", "choices": OPTIONS, "answer": label}
            for number, label in enumerate(labels)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        yaml = folder / "mine.yaml"
        text = yaml.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        yaml.write_text(text)
        return TaskSpec(name="mine", folder=str(folder), **how)

    return write


def line_about(spec):
    with pytest.raises(InputError) as caught:
        load_task(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def loaded(spec):
    return load_task(spec).tree["tasks"][spec.name]


def accuracies(task, right):
    """lm-eval's own score of each row if the model finds the option in `right` likeliest."""
    results = [[(0.0 if n == best else -1.0, False) for n in range(len(OPTIONS))] for best in right]
    return [
        task.process_results(doc, found)["acc"] for doc, found in zip(task.eval_docs, results, strict=True)
    ]


@pytest.mark.parametrize(
    ("labels", "row", "label"),
    [
        ([0, 1, -1, 2], 2, "-1"),
        ([-1, 1], 0, "-1"),
        ([0, 1, 3], 2, "3"),
        ([3, 1], 0, "3"),
        ([-4, 1], 0, "-4"),
        (["tree", "moon"], 1, "'moon'"),
        (["tree", "-1"], 1, "'-1'"),
        (["0", "1"], 0, "'0'"),
        ([0, None], 1, "None"),
        ([0.0, 1.0], 0, "0.0"),
        ([False, True, None], 2, "None"),
    ],
)
def test_a_label_that_is_no_option_is_refused_with_its_row(labelled, labels, row, label):
    line = line_about(labelled(labels))
    assert line.startswith(f"task 'mine': row {row} of its questions (counted from 0) is labelled {label},")
    assert line.endswith("of one of its 3 options")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([[0], [1, -1]], "row 1 of its questions (counted from 0) is labelled [1, -1], of which -1 is not"),
        ([[0], [3, 1]], "is labelled [3, 1], of which 3 is not the number (from 0) of one of its 3 options"),
        ([[0, None]], "is labelled [0, None], of which None is not"),
        ([["tree"], ["lamp"]], "is labelled ['tree'], of which 'tree' is not the number"),
        ([[0], []], "row 1 of its questions (counted from 0) has an empty list of labels"),
        ([[], [1]], "row 0 of its questions (counted from 0) has an empty list of labels"),
        ([[0], None], "row 1 of its questions (counted from 0) is labelled None, where row 0 has a list"),
    ],
)
def test_each_of_several_labels_is_an_option(labelled, labels, told):
    assert told in line_about(labelled(labels))


def test_a_list_among_single_labels_is_refused(labelled):
    one_list = ("doc_to_target: answer", 'doc_to_target: "{{[answer] if answer == 2 else answer}}"')
    assert "row 1 of its questions (counted from 0) is labelled [2], a list" in line_about(
        labelled([0, 2], one_list)
    )


@pytest.mark.parametrize(
    ("labels", "right", "target"),
    [
        ([0, 2, 1], [0, 2, 1], "answer"),
        (["tree", "rain"], [0, 2], "answer"),
        ([False, True], [0, 1], "answer"),
        ([[0, 2], [1]], [2, 1], "answer"),
        ([0, 2], [0, 2], "{{answer}}"),
        (["tree", "rain"], [0, 2], "{{choices.index(answer)}}"),
        ([0, 2], [0, 2], "{{choices[answer]}}"),
        ([[0, 2], [1]], [2, 1], "{{answer}}"),
        ([-1, 7], [1, 1], "1"),
    ],
)
def test_what_is_an_option_is_asked_and_can_be_answered(labelled, labels, right, target):
    written = target if target.isalnum() else f'"{target}"'
    task = loaded(labelled(labels, ("doc_to_target: answer", f"doc_to_target: {written}")))
    assert accuracies(task, right) == [1.0] * len(labels)


def test_only_the_rows_that_are_asked_count(labelled):
    spec = labelled([0, 1, 2, -1])
    assert load_task(spec.model_copy(update={"limit": 3})).n_requests == 9
    assert "row 3" in line_about(spec)


def test_where_the_options_are_contexts_the_text_is_the_label(labelled):
    as_winogrande = (
        ("doc_to_target: answer", 'doc_to_target: "and so on"'),
        ('doc_to_text: "{{question}}"', "doc_to_text: answer"),
    )
    task = loaded(labelled([0, 2], *as_winogrande))
    assert task.multiple_input == 3
    assert accuracies(task, [0, 2]) == [1.0, 1.0]
    assert "row 1 of its questions (counted from 0) is labelled -1," in line_about(
        labelled([0, -1], *as_winogrande)
    )


GENERATING = ("output_type: multiple_choice", "output_type: generate_until")
EXACT = ("  - metric: acc\n", "  - metric: exact_match\n")
SECOND = ("  - metric: acc_norm\n    aggregation: mean\n    higher_is_better: true\n", "")


def test_an_answer_that_is_written_has_its_options_too(labelled):
    assert load_task(labelled([0, 2], GENERATING, EXACT, SECOND)).n_requests == 2
    line = line_about(labelled([0, -1], GENERATING, EXACT, SECOND))
    assert "row 1" in line
    assert line.endswith("is labelled -1, which is not the number (from 0) of one of its 3 options")
    assert "'tree', which is not the number" in line_about(labelled(["tree"], GENERATING, EXACT, SECOND))


@pytest.mark.parametrize("output_type", ["generate_until", "loglikelihood", "loglikelihood_rolling"])
def test_without_options_any_target_is_asked(labelled, output_type):
    metrics = {"generate_until": "exact_match", "loglikelihood_rolling": "word_perplexity"}
    spec = labelled(
        [-1, 7],
        ("output_type: multiple_choice", f"output_type: {output_type}"),
        ("doc_to_choice: choices\n", ""),
        ("doc_to_target: answer", 'doc_to_target: "is {{answer}}"'),
        ("  - metric: acc\n", f"  - metric: {metrics.get(output_type, 'acc')}\n"),
        SECOND,
    )
    assert load_task(spec).n_requests == 2


def test_a_task_that_scores_by_itself_may_label_as_it_likes(labelled):
    spec = labelled([0, -1], ("metric_list:", "process_results: !function scoring.score\nmetric_list:"))
    own = "def score(doc, results):\n    return {'acc': 1.0, 'acc_norm': 1.0}\n"
    (Path(spec.folder) / "scoring.py").write_text(own)
    assert load_task(spec).n_requests == 6


FIRST = ("fewshot_split: train", "fewshot_split: train\nfewshot_config:\n  sampler: first_n")


@pytest.mark.parametrize("label", [-1, 3, None])
def test_an_example_shows_the_answer_it_is_labelled_with(labelled, label):
    labels = [0, 1, 2, label]
    asked = labelled(labels, FIRST, limit=1)
    assert load_task(asked.model_copy(update={"num_fewshot": 2})).n_requests == 3, "not drawn"
    line = line_about(asked.model_copy(update={"num_fewshot": 4}))
    assert line == (
        f"task 'mine': row 3 of its examples (counted from 0) is labelled {label}, "
        "which is not the number (from 0) of one of its 3 options"
    )


def test_in_a_group_the_task_is_named(labelled):
    folder = Path(labelled([0, 1]).folder)
    row = {"question": "so", "choices": OPTIONS, "answer": 5}
    (folder / "other.jsonl").write_text(json.dumps(row) + "\n")
    text = (folder / "mine.yaml").read_text()
    other = text.replace("task: mine", "task: other").replace("rows.jsonl", "other.jsonl")
    (folder / "other.yaml").write_text(other)
    (folder / "both.yaml").write_text("group: both\ntask: [mine, other]\n")
    line = line_about(TaskSpec(name="both", folder=str(folder)))
    assert line.startswith("task 'other': row 0 of its questions (counted from 0) is labelled 5,")


def test_the_command_refuses_before_anything_is_measured(prunebench, model, text, labelled):
    spec = labelled([0, 1, -1])
    answer = prunebench(
        *("evaluate", model, "--perplexity", text, "--seqlen", 32, "--max-tokens", 64, "--prompts", "none"),
        *("--no-speed", "--dtype", "float32", "--task", "mine", "--task-folder", spec.folder),
    )
    assert "task 'mine': row 2 of its questions (counted from 0) is labelled -1" in refusal(answer)
