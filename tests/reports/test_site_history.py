"""The history page: cells measured more than once, what is drawn of them and what is only named."""

from __future__ import annotations

from pathlib import Path

from reports.site import build_site
from reports.site.history import history_pages
from reports.site.holdings import read_holdings
from tests.reports.synthetic_site import dense_record, measured, steps, write


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
    assert [heading.text for heading in cell.table.headings[2:]] == ["Perplexity ↓", "Prune time ↓"]
    newest = cell.table.rows[0]
    assert (newest[3].text, newest[3].detail) == ("2.010", "one run")
    assert newest[2].detail.endswith(", n = 4")


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
    found = {cell.heading: [heading.text for heading in cell.table.headings[2:]] for cell in page.cells}
    (pruned_cell,) = (names for heading, names in found.items() if "wanda" in heading)
    assert pruned_cell == ["Perplexity ↓", "KL divergence ↓", "acc ↑", "Prune time ↓"]
    # Nothing moved: one line shows it, and the others are named.
    assert [len(cell.drawings) for cell in page.cells] == [1] * len(page.cells)


def test_no_history_says_so(tmp_path: Path) -> None:
    build_site([write(tmp_path / "results", dense_record())], tmp_path / "site", title="Board")
    page = (tmp_path / "site" / "history.html").read_text(encoding="utf-8")
    assert "No cell has two comparable records yet; 1 cell measured once." in page
