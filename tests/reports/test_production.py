"""Which answers are picked and which are produced stands on the page, with a test where the two part."""

from __future__ import annotations

import pytest

from reports import render_report
from suite.results.records.items import RightAnswers, TaskOutcomes
from suite.results.records.record import Record
from suite.results.statistics.metrics import PRODUCTION, item_metrics, metric_of
from suite.results.statistics.paired import holm, mcnemar
from suite.results.statistics.single import proportion
from tests.reports.page_tables import PageTables
from tests.reports.synthetic_measured import measured_record

CAPTION = "cloze-0shot, version 1.0, the first 200 questions"
N = 200


def with_right_answers(kind: str, picked: str, produced: str) -> Record:
    """A record in which the first task is answered so."""
    record = measured_record(kind)
    ranks = tuple(1 if one == "1" else 9 for one in produced)
    answers = RightAnswers(produced=produced, ranks=ranks, losses=(1.5,) * N)
    changes = {"outcomes": picked, "right_answers": answers}
    task: TaskOutcomes = record.tasks[0].model_copy(update=changes)
    accuracy = metric_of("acc", task.protocol, proportion(list(map(float, picked))), "higher")
    others = (m for m in record.metrics if (m.name, m.protocol) != ("acc", task.protocol))
    metrics = (accuracy, *others, *item_metrics(PRODUCTION, task))
    return record.model_copy(update={"tasks": (task, *record.tasks[1:]), "metrics": metrics})


def tables(*records: Record) -> PageTables:
    page = PageTables(render_report(list(records), title="t"))
    page.found = {k: v for k, v in page.found.items() if "Recognition" in k}
    return page


# The dense model picks 180 and produces the first 100 of them.
DENSE = with_right_answers("dense", "1" * 180 + "0" * 20, "1" * 100 + "0" * 100)


def test_models_that_pick_what_they_cannot_say_are_found() -> None:
    wanda = with_right_answers("wanda", "1" * 170 + "0" * 30, "1" * 20 + "0" * 180)
    magnitude = with_right_answers("magnitude", "0" * 99 + "1" * 101, "1" * 100 + "0" * 100)
    found = tables(DENSE, wanda, magnitude)
    row = found.row(CAPTION, "wanda")
    assert row[2].startswith("85.00 %|") and row[3].startswith("10.00 %|")
    assert row[4].startswith(f"{9**0.9:.1f}|") and row[5].startswith("1.500")
    assert row[6].startswith("100.00 %|") and row[7].startswith("20.00 %|") and "n = 100" in row[7]
    assert row[8] == "picks what it cannot say|80 only picked, 0 only produced, p < 0.001"
    assert found.row(CAPTION, "magnitude")[8].startswith("says what it does not pick|0 only picked, 99")
    dense = found.row(CAPTION, "dense")
    assert dense[6:] == ["–", "–", "the reference"]


def test_the_test_is_adjusted_over_the_models_of_a_table() -> None:
    def losing(n: int) -> str:
        return "0" * n + "1" * (100 - n) + "0" * 100

    records = [with_right_answers(kind, "1" * 200, losing(6)) for kind in ("wanda", "sparsegpt")]
    p_value = mcnemar([0.0] * 6 + [1.0] * 94, [1.0] * 100).p_value
    assert p_value is not None and p_value < 0.05
    adjusted = holm([p_value, p_value])[0]
    assert adjusted is not None and adjusted > 0.05
    found = tables(DENSE, *records)
    assert found.row(CAPTION, "wanda")[8] == (
        f"no difference shown|6 only picked, 0 only produced, p = {adjusted:.3f}"
    )


@pytest.mark.parametrize("missing", ["dense", "produced", "questions"])
def test_what_cannot_be_compared_says_so(missing: str) -> None:
    wanda = with_right_answers("wanda", "1" * 170 + "0" * 30, "1" * 20 + "0" * 180)
    if missing == "dense":
        found = tables(wanda)
        assert len(found.headings(CAPTION)) == 6, "without the dense model there is nothing to keep"
        return
    if missing == "produced":
        found = tables(with_right_answers("dense", "1" * 200, "0" * 200), wanda)
        assert found.row(CAPTION, "wanda")[6:] == ["–|there are none"] * 2 + ["not comparable|no items"]
        return
    other = wanda.tasks[0].model_copy(update={"items_digest": "0ther" * 8})
    found = tables(DENSE, wanda.model_copy(update={"tasks": (other, *wanda.tasks[1:])}))
    methods = sorted([row[0] for row in rows[1:]] for rows in found.found.values())
    assert methods == [["dense"], ["wanda"]]


def test_answers_without_options_have_nothing_to_pick() -> None:
    outcomes = "1" * 120 + "0" * 80
    records = [with_right_answers(kind, outcomes, outcomes) for kind in ("dense", "wanda")]
    headings = tables(*records).headings(CAPTION)
    assert [heading.split("|")[0] for heading in headings[2:]] == ["Produced ↑", "Rank ↓", "Loss ↓"]


def test_older_records_have_no_such_chapter() -> None:
    page = render_report([measured_record("dense"), measured_record("wanda")], title="t")
    assert "Recognition and production" not in page


def test_task_tables_do_not_repeat_it() -> None:
    wanda = with_right_answers("wanda", "1" * 170 + "0" * 30, "1" * 20 + "0" * 180)
    page = PageTables(render_report([DENSE, wanda], title="t"))
    (caption,) = (caption for caption in page.found if caption.endswith(CAPTION) and "Tasks" in caption)
    assert not any("production" in heading or "rank" in heading for heading in page.found[caption][0])
