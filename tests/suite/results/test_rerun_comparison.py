"""A record against a rerun: what must be equal where, and what is never compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.results.records.record import Environment, Record
from suite.results.verification.checked_record import Subject
from suite.results.verification.rerun_comparison import compare_rerun, input_that_differs
from tests.suite.results.consistent import TASK, TEXT, cherry_picked, pruned_record, with_metric
from tests.suite.results.examples import ENVIRONMENT

ELSEWHERE = ENVIRONMENT.model_copy(update={"processor": "another"})


def problems(stored: Record, found: Record) -> list[str]:
    findings = compare_rerun(Subject(Path("x"), stored), found)
    return [finding.message for finding in findings if finding.level == "problem"]


def answered(record: Record, outcomes: str, accuracy: float) -> Record:
    task = record.tasks[0].model_copy(update={"outcomes": outcomes})
    return with_metric(record.model_copy(update={"tasks": (task,)}), "acc", value=accuracy)


def test_a_rerun_that_is_the_same_has_no_finding_whatever_it_took() -> None:
    stored = pruned_record()
    slower = with_metric(with_metric(stored, "prune_seconds", value=99.0), "peak_host_bytes", value=1.0)
    assert problems(stored, stored) == problems(stored, slower) == []


@pytest.mark.parametrize(("factor", "here", "elsewhere"), [(1 + 1e-8, 0, 0), (1.004, 1, 0), (1.006, 1, 1)])
def test_perplexity_is_exact_on_one_machine_and_near_elsewhere(
    factor: float, here: int, elsewhere: int
) -> None:
    stored = pruned_record()
    value = stored.metrics[0].value
    assert value is not None
    found = with_metric(stored, "perplexity", value=value * factor)
    assert len(problems(stored, found)) == here
    assert len(problems(stored, found.model_copy(update={"environment": ELSEWHERE}))) == elsewhere


def test_one_answer_may_change_elsewhere_and_none_here() -> None:
    stored = pruned_record()
    one, two = answered(stored, "101111", 5 / 6), answered(stored, "111111", 1.0)
    assert len(problems(stored, one)) == 2  # the answers, and the accuracy
    assert problems(stored, one.model_copy(update={"environment": ELSEWHERE})) == []
    assert len(problems(stored, two.model_copy(update={"environment": ELSEWHERE}))) == 2


@pytest.mark.parametrize("environment", [ENVIRONMENT, ELSEWHERE])
def test_items_that_were_left_out_are_told_wherever_it_is_run(environment: Environment) -> None:
    whole = pruned_record()
    found = problems(cherry_picked(whole), whole.model_copy(update={"environment": environment}))
    assert found[:2] == [
        f"has 2 windows of {TEXT}, run again 4",
        f"has 2 divergences of {TEXT}, run again 4",
    ]
    assert whole.answers is not None
    fewer = whole.answers.model_copy(update={"answers": whole.answers.answers[:2]})
    half = whole.tasks[0].model_copy(update={"n": 3, "outcomes": "101"})
    picked = whole.model_copy(update={"tasks": (half,), "answers": fewer})
    assert problems(picked, whole.model_copy(update={"environment": environment}))[:2] == [
        f"has 3 questions of {TASK}, run again 6",
        "has 2 answers of built-in, run again 3",
    ]
    nothing = whole.model_copy(update={"windows": (), "divergences": (), "tasks": (), "answers": None})
    assert len(problems(whole, nothing)) == 4


def test_a_number_of_other_items_is_told() -> None:
    stored = pruned_record()
    assert problems(with_metric(stored, "graded", n=5), stored) == [
        f"graded {TASK} is of 5 items, run again of 6"
    ]


def test_where_memory_ran_out_nothing_is_exact() -> None:
    stored = pruned_record()
    found = with_metric(stored, "top1_agreement", value=0.78)
    assert len(problems(stored, found)) == 1
    assert problems(stored, found.model_copy(update={"warnings": ("text: memory ran out; ...",)})) == []


def test_an_input_that_is_another_is_named() -> None:
    stored = pruned_record()
    assert input_that_differs(stored, stored) is None
    assert stored.model is not None and stored.answers is not None
    for update, named in (
        ({"model": stored.model.model_copy(update={"weight_digest": "0" * 64})}, "the weights"),
        ({"windows": (stored.windows[0].model_copy(update={"corpus_digest": "0"}),)}, "the tokens of"),
        ({"tasks": (stored.tasks[0].model_copy(update={"items_digest": "0"}),)}, "the questions of"),
        ({"answers": stored.answers.model_copy(update={"prompts_digest": "0"})}, "the prompts"),
    ):
        difference = input_that_differs(stored, stored.model_copy(update=update))
        assert difference is not None and named in difference
