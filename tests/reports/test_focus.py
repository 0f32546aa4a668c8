"""Thousands of cells: all of them are ranked, the best of each ranking are shown in detail."""

from __future__ import annotations

import re

from reports import render_report
from reports.page.focus import in_focus, with_whole_records
from reports.rankings.comparison import compare
from suite.results.records.record import Record
from tests.reports.synthetic import SETTINGS, failed_record, make_record, quickstart

MODELS = [f"m{i}" for i in range(5)]


def many(pattern: str = "0.5") -> list[Record]:
    """Thirty pruned cells of five models."""
    return [make_record(kind, pattern, model_name=model) for model in MODELS for kind in SETTINGS]


def test_what_fits_is_shown_whole() -> None:
    rankings = compare(quickstart()).rankings
    assert in_focus(rankings, 12) == list(rankings)


def test_the_best_of_every_ranking_come_before_the_second_of_any() -> None:
    two_patterns = [record for pattern in ("0.5", "2:4") for record in many(pattern)]
    kept = in_focus(compare(two_patterns).rankings, 21)
    # Two models fill the page; of a third there would be too little to compare.
    assert [(r.setting.model, len(r.entries)) for r in kept] == [("m0", 6), ("m0", 5), ("m1", 5), ("m1", 5)]
    assert all([e.rank for e in r.entries] == list(range(1, len(r.entries) + 1)) for r in kept)


def test_the_largest_settings_are_shown_and_no_more_than_can_be_compared() -> None:
    settings = [{"group": size} for size in range(40)]
    large = [make_record("wanda", model_name="zz", settings=one, modules=()) for one in settings]
    kept = in_focus(compare([*many(), *large]).rankings, 36)
    assert [(r.setting.model, len(r.entries)) for r in kept] == [("m0", 6), ("zz", 30)]


def test_whole_records_are_read_once_and_only_for_what_is_shown() -> None:
    records = many()
    slim = [r.model_copy(update={"modules": (), "body_digest": ""}) for r in records]
    full = {r.cell.digest: r for r in records}
    read: list[str] = []

    def whole(record: Record) -> Record:
        read.append(record.cell.digest)
        return full[record.cell.digest]

    shown = with_whole_records(in_focus(compare(slim).rankings, 10), whole)
    # Ten pruned cells of two models, and the two dense ones.
    assert len(read) == len(set(read)) == 12
    assert all(entry.record.modules for ranking in shown for entry in ranking.entries)
    assert all(ranking.dense is not None and ranking.dense.record.body_digest for ranking in shown)


def test_a_page_of_slim_records_is_the_page_of_the_whole_ones() -> None:
    records = [*quickstart(), failed_record("wanda", "4:8")]
    full = {r.cell.digest: r for r in records}
    slim = [r.model_copy(update={"modules": (), "answers": None, "body_digest": ""}) for r in records]
    page = render_report(slim, title="t", whole=lambda r: full[r.cell.digest])
    assert page == render_report(records, title="t")


def test_a_long_report_ranks_all_and_says_what_it_left_out() -> None:
    kinds = ("magnitude", "wanda", "sparsegpt", "barber-wanda")
    records = [make_record(kind, f"{0.3 + i / 100:.2f}", modules=()) for i in range(40) for kind in kinds]
    page = render_report(records, title="t")
    assert page.count("<tr data-k=") == 160
    assert "for 120 of 160 pruned models" in page
    assert page.count('class="cell"') == 120
    links = re.findall(r'href="#(cell-[0-9a-f]{8})"', page)
    assert links and all(f'id="{link}"' in page for link in links)
