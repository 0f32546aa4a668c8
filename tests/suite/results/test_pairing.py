from __future__ import annotations

from typing import Any

import pytest

from suite.results.records.comparability import model_difference
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Record
from suite.results.statistics.pairing import PairedItems, pair_items
from tests.suite.results.examples import ENVIRONMENT
from tests.suite.results.gate.contestants import (
    KL,
    MODEL,
    NLL,
    answered,
    asked,
    divergence,
    losses,
    record,
    shifted,
)


def paired(first: Record, second: Record, grades: tuple[Any, Any] = (None, None)) -> dict[str, PairedItems]:
    found = pair_items(first, second, first_items=lambda *_: grades[0], second_items=lambda *_: grades[1])
    return {items.name: items for items in found}


def test_windows_are_compared_pair_by_pair() -> None:
    worse = tuple(nll + 0.02 + 0.001 * n for n, nll in enumerate(NLL))
    found = paired(record(), record(windows=(losses(worse),)))["perplexity"]
    assert (found.first, found.second, found.direction) == (NLL, worse, "lower")
    difference = found.difference()
    assert difference.value == pytest.approx(0.02 + 0.001 * 7.5)
    assert difference.low is not None and 0.02 < difference.low < difference.value
    assert difference.p_value is not None and difference.p_value < 0.001


def test_no_p_value_is_below_what_all_sign_flips_could_give() -> None:
    for n in (6, 16):
        some = NLL[:n]
        far = record(windows=(losses(shifted(some, 1.0, 0.01)),))
        found = paired(record(windows=(losses(some),)), far)["perplexity"]
        # Of 16 not all flips are tried, and Student's t says what they would.
        assert found.difference().p_value == pytest.approx(2 * 0.5**n, rel=1e-6)
        assert found.fewest_p_value == 2 * 0.5**n
    coarse = record(tasks=(asked(None, metric="f1"),))
    grades = (1.0,) * 6, (0.5,) * 6
    assert paired(coarse, coarse, grades)["f1"].difference().p_value == pytest.approx(2 / 64)


def test_answers_to_questions_are_compared_by_their_flips() -> None:
    first = record(tasks=(asked("1" * 10 + "0" * 10),))
    second = record(tasks=(asked("0" * 9 + "1" + "0" * 10),))
    found = paired(first, second)["acc"]
    difference = found.difference()
    assert difference.value == pytest.approx(-9 / 20)
    assert difference.p_value == pytest.approx(2 * 0.5**9)
    assert found.fewest_p_value == pytest.approx(2 * 0.5**20)


def test_divergence_gives_two_metrics() -> None:
    first, second = record(divergences=(divergence(),)), record(divergences=(divergence(shifted(KL, 0.1)),))
    found = paired(first, second)
    assert found["kl_divergence"].second == shifted(KL, 0.1)
    assert found["top1_agreement"].direction == "higher"
    alone = paired(first, record())["kl_divergence"]
    assert alone.reason == "the candidate did not measure it"
    moved = paired(first, record(divergences=(divergence(),), windows=(losses(corpus_digest="x"),)))
    assert moved["kl_divergence"].reason == "another corpus"


def test_graded_answers_are_compared_by_the_grades_in_the_side_files() -> None:
    graded = record(tasks=(asked(None, metric="f1"),))
    found = paired(graded, graded, ((0.5, 0.25, 1.0), (0.5, 0.0, 1.0)))["f1"]
    assert (found.kind, found.second) == ("graded", (0.5, 0.0, 1.0))
    without = paired(graded, graded, ((0.5,), None))["f1"]
    assert without.reason == "its answers are graded, and the grades of one side are missing"


def test_an_answer_that_is_no_longer_likely_at_all_is_not_left_out() -> None:
    first, second = record(answers=answered((1.0, 2.0))), record(answers=answered((1.0, None)))
    assert paired(first, second)["answer_dense_nll"].second == (1.0, None)


def test_answers_are_compared_prompt_by_prompt_where_the_baseline_has_a_value() -> None:
    first, second = record(answers=answered((1.0, None, 2.0))), record(answers=answered((1.5, 1.0, 2.5)))
    found = paired(first, second)
    assert found["answer_dense_nll"].first == (1.0, 2.0)
    assert found["answer_dense_nll"].second == (1.5, 2.5)
    assert found["answers_as_dense"].first == (1.0, 1.0, 1.0)
    assert "answer_repetition" not in found, "none has a value"
    fewer = paired(first, record(answers=answered((1.0,))))
    assert fewer["answer_dense_nll"].reason == "another number of answers: 3 and 1"
    other = paired(first, record(answers=answered((1.0,), prompts_digest="x")))
    assert other["answer_dense_nll"].reason == "other prompts"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"windows": (losses(corpus_digest="x"),)}, "another corpus"),
        ({"windows": (losses(limit=512),)}, "another token limit: None and 512"),
        ({"windows": (losses(NLL[:6]),)}, "another number of windows: 16 and 6"),
        ({"windows": ()}, "the candidate did not measure it"),
    ],
)
def test_windows_that_are_not_the_same_say_so(change: dict[str, Any], reason: str) -> None:
    found = paired(record(), record(**change))["perplexity"]
    assert found.reason == reason
    with pytest.raises(ValueError, match="cannot be paired"):
        found.difference()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (asked("1100", version="2.0"), "another task version: 1.0 and 2.0"),
        (asked("1100", limit=4), "another limit: None and 4"),
        (asked("1100", items_digest="x"), "other questions"),
        (asked(None), "its answers are graded, and the grades of one side are missing"),
    ],
)
def test_questions_that_are_not_the_same_say_so(other: TaskOutcomes, reason: str) -> None:
    found = paired(record(tasks=(asked("1101"),)), record(tasks=(other,)))["acc"]
    assert (found.first, found.reason) == ((), reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": MODEL.model_copy(update={"dtype": "bfloat16"})}, "another dtype: float32 and bfloat16"),
        ({"model": MODEL.model_copy(update={"weight_digest": "e" * 64})}, "another dense model: "),
        ({"model": None}, "it is not known which model was measured"),
        (
            {"environment": ENVIRONMENT.model_copy(update={"threads": 8})},
            "another number of threads: 2 and 8",
        ),
    ],
)
def test_what_makes_two_records_incomparable_as_a_whole_is_named(change: dict[str, Any], reason: str) -> None:
    found = model_difference(record(), record(**change))
    assert found is not None and found.startswith(reason)
    assert model_difference(record(), record()) is None
