"""Two records are compared on the items both measured, and what cannot be compared says why."""

from __future__ import annotations

from typing import Any

import pytest

from suite.results.items import TaskOutcomes, WindowDivergence, WindowLosses
from suite.results.pairing import PairedMetric, pair_records
from suite.results.record import ModelIdentity, Record
from tests.suite.results.examples import make_failed, make_record

TEXT = "wiki-sample-token-s512"
NLL = tuple(3.0 + 0.1 * (n % 5) for n in range(12))
MODEL = ModelIdentity(
    name="m", revision=None, architecture="A", n_parameters=1, weight_digest="d" * 64, dtype="float32"
)


def losses(nll: tuple[float | None, ...] = NLL, **changes: Any) -> WindowLosses:
    fields: dict[str, Any] = {"corpus_digest": "c", "corpus_revision": "1", "seqlen": 512, "limit": None}
    return WindowLosses(protocol=TEXT, nll=nll, **{**fields, **changes})


def asked(outcomes: str | None, task: str = "cloze", **changes: Any) -> TaskOutcomes:
    fields: dict[str, Any] = {
        "version": "1.0",
        "num_fewshot": 0,
        "limit": None,
        "n": len(outcomes or ""),
        "docs_digest": "d",
        "items_digest": "i",
        "metric": "acc",
    }
    return TaskOutcomes(task=task, protocol=f"{task}-0shot", outcomes=outcomes, **{**fields, **changes})


def record(**changes: Any) -> Record:
    return make_record(**{"model": MODEL, "windows": (losses(),), **changes})


def by_name(found: list[PairedMetric]) -> dict[str, PairedMetric]:
    return {metric.protocol if metric.name == "acc" else metric.name: metric for metric in found}


def test_windows_are_compared_pair_by_pair() -> None:
    worse = record(windows=(losses(tuple(nll + 0.02 + 0.001 * n for n, nll in enumerate(NLL))),))
    (found,) = pair_records(record(), worse)
    assert found.name == "log_perplexity"
    assert found.difference == pytest.approx(0.02 + 0.001 * 5.5)
    assert found.low is not None and 0.02 < found.low < found.difference
    assert found.p_value is not None and found.p_value < 0.01
    (back,) = pair_records(worse, record())
    assert back.difference == pytest.approx(-found.difference)


def test_a_record_does_not_differ_from_itself() -> None:
    one = record(
        tasks=(asked("1101"),), divergences=(WindowDivergence(protocol=TEXT, kl=NLL, agreement=NLL),)
    )
    for metric in pair_records(one, one):
        assert (metric.difference, metric.p_value) == (0.0, 1.0)


def test_tasks_are_compared_by_their_flips_and_adjusted_for_being_several() -> None:
    first = record(tasks=(asked("1" * 10 + "0" * 10), asked("10" * 10, "agreement")))
    second = record(tasks=(asked("0" * 9 + "1" + "0" * 10), asked("10" * 9 + "01", "agreement")))
    found = by_name(pair_records(first, second))
    cloze = found["cloze-0shot"]
    assert cloze.difference == pytest.approx(-9 / 20)
    assert cloze.p_value == pytest.approx(2 * 0.5**9)
    assert cloze.adjusted == pytest.approx(2 * cloze.p_value)
    assert found["agreement-0shot"].difference == 0.0
    assert found["agreement-0shot"].adjusted == 1.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"windows": (losses(corpus_digest="x"),)}, "another corpus"),
        ({"windows": (losses(limit=512),)}, "another token limit: None and 512"),
        ({"windows": (losses(NLL[:6]),)}, "another number of windows: 12 and 6"),
        ({"windows": ()}, "the second record did not measure it"),
        ({"windows": (losses((None, *NLL[1:])),)}, "not finite: 1 of 24 items"),
    ],
)
def test_windows_that_are_not_the_same_say_so(change: dict[str, Any], reason: str) -> None:
    (found,) = pair_records(record(), record(**change))
    assert found.difference is None
    assert found.reason == reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (asked("1100", version="2.0"), "another task version: 1.0 and 2.0"),
        (asked("1100", limit=4), "another limit: None and 4"),
        (asked("1100", items_digest="x"), "another questions"),
        (asked(None), "its answers are graded, not right or wrong"),
    ],
)
def test_questions_that_are_not_the_same_say_so(other: TaskOutcomes, reason: str) -> None:
    found = by_name(pair_records(record(tasks=(asked("1101"),)), record(tasks=(other,))))["cloze-0shot"]
    assert (found.difference, found.reason) == (None, reason.replace("another questions", "other questions"))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (make_failed(model=MODEL), "has no numbers: its cell failed"),
        (record(model=MODEL.model_copy(update={"dtype": "bfloat16"})), "dtypes differ: float32 and bfloat16"),
        (record(model=MODEL.model_copy(update={"weight_digest": "e" * 64})), "the dense models differ"),
    ],
)
def test_records_that_cannot_be_paired_say_why(second: Record, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pair_records(record(), second)
