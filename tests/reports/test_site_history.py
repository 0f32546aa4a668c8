"""The history page: cells measured more than once, what is drawn of them and what is only named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reports.site import build_site
from reports.site.pages import drawing, history
from reports.site.pages.drawing import drawing_of
from reports.site.pages.history import history_pages
from reports.site.records.site_record import read_holdings
from suite.results.history.series import history_of
from suite.results.records.index import StoredRecord
from tests.reports.synthetic_site import dense_record, digest_of, measured, site_record, steps, write
from tests.suite.results.consistent import CODE


def moved(root: Path, *perplexities: float) -> Path:
    """A cell whose perplexity was each of these, a day after another, by other code."""
    for day, value in enumerate(perplexities, 1):
        code = CODE.model_copy(update={"source_digest": digest_of(day)})
        write(root / str(day), site_record(nll=(math.log(value),) * 4, day=day, code=code, seconds=2.0))
    return root


def test_a_step_is_marked_and_cells_measured_once_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "dense", dense_record())
    (page,) = history_pages(read_holdings([steps(tmp_path, "org/alpha")]).ranked)
    (cell,) = page.cells
    (drawing,) = cell.drawings
    assert page.n_once == 1 and cell.is_marked
    assert drawing.title == "Perplexity ↓" and drawing.about == "news-sample-token-s8"
    assert any(told.startswith("Step at 2026-01-06") and "worse" in told for told in drawing.told)
    assert [dot.is_change for dot in drawing.dots].index(True) == 5
    assert [row[2].mark for row in cell.table.rows] == ["", "", "", "", "change", "", "", "", "", ""]
    assert all(row[0].link.startswith("records/") for row in cell.table.rows)


def test_what_stays_within_the_tolerance_is_named_and_has_its_values_in_the_table(tmp_path: Path) -> None:
    (page,) = history_pages(read_holdings([steps(tmp_path, "org/alpha")]).ranked)
    (cell,) = page.cells
    assert cell.level == ("Prune time ↓ (s)",)
    assert [heading.text for heading in cell.table.columns[2:]] == ["Perplexity ↓", "Prune time ↓"]
    newest = cell.table.rows[0]
    assert (newest[3].text, newest[3].detail) == ("2.010", "one run")
    assert newest[2].detail.endswith(", n = 4")


def test_a_move_of_which_too_few_records_tell_is_said_not_to_be_sure(tmp_path: Path) -> None:
    (page,) = history_pages(read_holdings([moved(tmp_path, 49.0, 63.7)]).ranked)
    (drawn,) = page.cells[0].drawings
    assert (drawn.low, drawn.high, drawn.is_marked, drawn.is_level) == ("49.000", "63.700", False, False)
    assert drawn.told == ("No certain change yet: 2 records, highest and lowest differ by 30.0\u00a0%.",)


def test_only_what_is_within_the_tolerance_is_said_not_to_have_changed(tmp_path: Path) -> None:
    (page,) = history_pages(read_holdings([moved(tmp_path, 49.0, 49.2)]).ranked)
    (drawn,) = page.cells[0].drawings
    assert drawn.told == ("No change beyond 1\u00a0%.",) and drawn.is_level


@pytest.mark.parametrize("low, apart", [(0.0, "0.0004"), (-0.0001, "0.0005")])
def test_a_move_from_nothing_has_no_percentage(low: float, apart: str) -> None:
    records = []
    for day, value in enumerate((low, 0.0004), 1):
        made = site_record(day=day)
        metrics = (made.metrics[0].model_copy(update={"value": value}),)
        record = made.model_copy(update={"metrics": metrics}).sealed()
        records.append(StoredRecord(Path(str(day)), record, record.body_digest))
    (series,) = history_of(records)
    assert drawing_of(series).told == (
        f"No certain change yet: 2 records, highest and lowest differ by {apart}.",
    )


def test_the_page_has_the_size_and_the_bounds_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "WIDTH", 640)
    monkeypatch.setattr(drawing, "HEIGHT", 90)
    monkeypatch.setattr(history, "QUALITY_TOLERANCE", 0.025)
    monkeypatch.setattr(history, "COST_TOLERANCE", 0.3)
    build_site([moved(tmp_path / "moved", 49.0, 63.7)], tmp_path / "site", title="Board")
    page = (tmp_path / "site" / "history.html").read_text(encoding="utf-8")
    assert 'viewBox="0 0 640 90"' in page and "0 0 400 120" not in page
    assert "(over 2.5\u00a0%, for times 30\u00a0%)" in page


def test_time_has_changes_of_its_own(tmp_path: Path) -> None:
    build_site([steps(tmp_path / "steps", "org/alpha", slower=1.5)], tmp_path / "site", title="Board")
    page = (tmp_path / "site" / "history.html").read_text(encoding="utf-8")
    assert page.count('<svg class="history"') == page.count('class="change"') == 2
    assert "<h3>Perplexity ↓" in page and "<h3>Prune time ↓" in page


def test_divergence_and_accuracy_are_followed_too(tmp_path: Path) -> None:
    for day in (1, 2):
        dense, pruned = measured()
        made = {"created": f"2026-02-{day:02}T10:00:00+00:00"}
        write(tmp_path / str(day), dense, pruned.model_copy(update=made).sealed())
    (page,) = history_pages(read_holdings([tmp_path]).ranked)
    found = {cell.heading: [heading.text for heading in cell.table.columns[2:]] for cell in page.cells}
    (pruned_cell,) = (names for heading, names in found.items() if "wanda" in heading)
    assert pruned_cell == ["Perplexity ↓", "KL divergence ↓", "acc ↑", "Prune time ↓"]
    # Nothing moved: one line shows it, and the others are named.
    assert [len(cell.drawings) for cell in page.cells] == [1] * len(page.cells)


def test_no_history_says_so(tmp_path: Path) -> None:
    build_site([write(tmp_path / "results", dense_record())], tmp_path / "site", title="Board")
    page = (tmp_path / "site" / "history.html").read_text(encoding="utf-8")
    assert "No cell has two comparable records yet; 1 cell measured once." in page
