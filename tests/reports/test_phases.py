"""No second of a cell counts twice, and none is lost."""

from __future__ import annotations

import pytest

from reports.rankings.comparison import compare
from reports.rankings.phases import REST, spent_by_phase
from reports.tables import cost_table
from suite.results.records.record import PhaseCost, Record
from tests.reports.synthetic import make_record

TEXT = make_record("wanda").cell.perplexity[0].protocols[0]
AS_RECORDED = {
    "load": 0.3,
    "reference speed": 0.5,
    "calibrate": 1.5,
    "prune": 92.8,
    "solve": 8.5,
    "propagate": 7.9,
    "statistics": 75.6,
    "check": 1.7,
    f"evaluate {TEXT}": 20.3,
    "evaluate offline_cloze": 5.3,
    "answer prompts": 58.8,
    "speed": 38.9,
    "judge answers": 12.1,
}


def with_phases(spent: dict[str, float]) -> Record:
    phases = tuple(PhaseCost(name=name, seconds=seconds) for name, seconds in spent.items())
    return make_record("wanda", phases=phases)


def test_a_prune_is_its_parts_and_what_is_left_of_it() -> None:
    spent = spent_by_phase(with_phases(AS_RECORDED))
    assert spent[REST] == pytest.approx(92.8 - 8.5 - 7.9 - 75.6)
    assert (spent["texts"], spent["tasks"], spent["speed"]) == (20.3, 5.3, 38.9)
    assert spent["answers"] == pytest.approx(58.8 + 12.1)
    inner = ("solve", "propagate", "statistics")
    assert sum(spent.values()) == pytest.approx(
        sum(AS_RECORDED.values()) - sum(AS_RECORDED[p] for p in inner)
    )
    prune = ["calibrate", "statistics", "solve", "propagate", REST, "check"]
    assert list(spent) == ["load", *prune, "texts", "tasks", "answers", "speed", "reference speed"]


def test_parts_that_outlast_their_whole_by_a_hair_leave_nothing() -> None:
    assert spent_by_phase(with_phases({"prune": 1.0, "statistics": 0.6, "solve": 0.400001}))[REST] == 0.0


def test_other_phases_come_last_by_name() -> None:
    assert list(spent_by_phase(with_phases({"zip": 1.0, "anneal": 2.0, "check": 1.0}))) == [
        "check",
        "anneal",
        "zip",
    ]


def test_the_table_sums_each_second_once() -> None:
    table = cost_table(compare([with_phases(AS_RECORDED)]).rankings)
    row = {h.text: cell.text for h, cell in zip(table.columns, table.rows[0], strict=True)}
    assert row["All"] == f"{sum(AS_RECORDED.values()) - 8.5 - 7.9 - 75.6:.1f}"
    assert row[REST] == "0.8" and row["statistics"] == "75.6"
