"""What each part of a recipe adds, from pairs of records that differ in that part alone."""

from __future__ import annotations

from math import exp, log
from statistics import fmean
from typing import Any

import pytest

from reports import compare, render_report
from reports.charts.parts import change_by_part
from reports.rankings.additions import Addition, additions
from suite.results.records.record import RecipePart, Record
from suite.results.statistics.perplexity import paired_log_ratio
from tests.reports.page_tables import PageTables
from tests.reports.synthetic import make_record

ROLES = {"owl": "allocation", "swaps": "refinement", "refit": "update", "llm-barber": "second pass"}


def pruned(*parts: str, kind: str = "wanda", factor: float = 1.0, **changes: Any) -> Record:
    """A record pruned by these parts, whose perplexities are `factor` times those of `kind`."""
    made = make_record(kind, ppl_factor=factor, **changes)
    cell = made.cell.model_copy(update={"method": "recipe", "settings": {"recipe": " | ".join(parts)}})
    roles = tuple(
        RecipePart.model_validate({"role": ROLES.get(part.partition("(")[0], "score"), "text": part})
        for part in parts
    )
    return made.model_copy(update={"cell": cell, "parts": roles}).sealed()


def found_in(*records: Record) -> list[Addition]:
    return additions(compare([make_record("dense"), *records]).rankings)


def losses(record: Record) -> list[float]:
    return [x for x in record.windows[0].nll if x is not None]


def test_a_part_is_held_against_the_same_recipe_without_it_seed_by_seed() -> None:
    without = [pruned("wanda", factor=1.0 + seed / 10, seed=seed) for seed in range(3)]
    refitted = [
        pruned("wanda", "refit", kind="sparsegpt", factor=0.9 + seed / 20, seed=seed) for seed in range(3)
    ]
    first, second = found_in(*without, *refitted)
    assert [a.protocol.name for a in (first, second)] == [w.protocol for w in without[0].windows]
    assert (first.title, first.base, first.seeds) == ("refit", "wanda", (0, 1, 2))
    logs = [[fmean(losses(record)) for record in side] for side in (without, refitted)]
    assert first.before == pytest.approx(exp(fmean(logs[0])))
    assert first.after == pytest.approx(exp(fmean(logs[1])))
    each = [exp(after - before) for before, after in zip(*logs, strict=True)]
    assert (first.lowest, first.highest) == pytest.approx((min(each), max(each)))
    means = [
        [fmean(window) for window in zip(*map(losses, side), strict=True)] for side in (refitted, without)
    ]
    assert first.ratio == paired_log_ratio(*means)


def test_only_seeds_that_both_were_run_with_count() -> None:
    found = found_in(
        *(pruned("wanda", seed=seed) for seed in (0, 1)), *(pruned("wanda", "refit", seed=s) for s in (1, 2))
    )
    assert {addition.seeds for addition in found} == {(1,)}


def test_a_base_that_is_not_calibrated_stands_beside_every_seed() -> None:
    found = found_in(
        pruned("magnitude", kind="magnitude"), *(pruned("magnitude", "refit", seed=seed) for seed in (3, 4))
    )
    assert {(a.seeds, a.base) for a in found} == {((3, 4), "magnitude")}


@pytest.mark.parametrize(
    "other",
    [
        pruned("wanda", "swaps", "refit"),
        pruned("ria", "refit"),
        pruned("ria"),
        pruned("wanda", "refit", pattern="2:4"),
        pruned("wanda", "refit", seed=7),
    ],
    ids=["two parts more", "another score too", "another score", "another pattern", "another seed"],
)
def test_what_differs_in_more_than_one_part_is_no_pair(other: Record) -> None:
    assert found_in(pruned("wanda"), other) == []


def test_other_calibration_is_no_pair() -> None:
    more = pruned("wanda", "refit")
    assert more.cell.calibration is not None
    calibration = more.cell.calibration.model_copy(update={"n_samples": 7})
    assert (
        found_in(
            pruned("wanda"),
            more.model_copy(
                update={"cell": more.cell.model_copy(update={"calibration": calibration})}
            ).sealed(),
        )
        == []
    )


def test_parts_come_in_the_order_of_a_recipe_and_a_second_pass_says_so() -> None:
    found = found_in(
        pruned("wanda"),
        pruned("wanda", "refit"),
        pruned("wanda", "llm-barber(rebuild_ratio=0.1)"),
        pruned("wanda", "swaps"),
        pruned("owl", "wanda"),
    )
    titles = list(dict.fromkeys(addition.title for addition in found))
    assert titles == ["owl", "swaps", "llm-barber(rebuild_ratio=0.1), in a second pass", "refit"]


def test_a_page_has_a_table_per_part_and_a_figure() -> None:
    records = [
        make_record("dense"),
        pruned("wanda"),
        pruned("wanda", "refit", kind="sparsegpt"),
        pruned("wanda", "swaps", factor=0.97),
    ]
    page = render_report(records, title="Parts")
    assert "What each part adds" in page and 'id="setting-1-chart-parts"' in page
    tables = PageTables(page)
    [row, _] = tables.rows("What each part adds, refit")
    ratio = exp(fmean(losses(records[2])) - fmean(losses(records[1])))
    assert row[0].startswith("wanda") and row[5].startswith(f"{100 * (ratio - 1):.2f} %|")


def test_a_page_of_records_without_parts_has_no_such_chapter() -> None:
    assert "What each part adds" not in render_report(
        [make_record("dense"), make_record("wanda")], title="None"
    )
    assert change_by_part(compare([make_record("dense"), make_record("wanda")]).rankings) is None


def test_the_figure_says_what_helps_most() -> None:
    better = compare([make_record("dense"), pruned("wanda"), pruned("wanda", "refit", factor=0.8)])
    figure = change_by_part(better.rankings)
    assert figure is not None
    assert figure.title.startswith("Perplexity falls most by adding refit to wanda (50")
    assert figure.data["change %"].tolist() == [pytest.approx(100 * (exp(log(0.8)) - 1))]
    worse = compare([make_record("dense"), pruned("wanda"), pruned("wanda", "refit", factor=1.3)])
    figure = change_by_part(worse.rankings)
    assert figure is not None and figure.title.startswith("No part lowers perplexity")
