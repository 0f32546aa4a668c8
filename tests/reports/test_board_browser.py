"""The ranked table under a reader's hands: sorted, filtered, paged, printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reports import render_report
from tests.reports.browser import Visit, axe_violations
from tests.reports.synthetic import make_record
from tests.reports.synthetic_measured import measured_record

pytestmark = [pytest.mark.slow, pytest.mark.browser]

N_SPARSITIES = 61
KINDS = ("magnitude", "wanda", "sparsegpt", "barber-wanda")
COLUMN = """(heading) => {
    const table = document.querySelector(".board table");
    const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const place = titles.findIndex((title) => title.startsWith(heading));
    const said = (cell) => (cell.querySelector("bdi") ?? cell.firstChild).textContent;
    return [...table.tBodies[0].rows].map((row) => said(row.cells[place]).replaceAll("\\u00a0", " "));
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two patterns each, and one cell without a prune time."""
    path = tmp_path_factory.mktemp("board") / "report.html"
    records = []
    for model, factor in (("org/small", 1.0), ("org/large", 0.5)):
        shared = {"model_name": model, "ppl_factor": factor, "modules": ()}
        records.append(make_record("dense", **shared))
        for pattern in ("0.5", "2:4"):
            records += [measured_record(kind, pattern, tasks=("cloze",), **shared) for kind in KINDS]
    records.append(make_record("wanda", "0.7", model_name="org/small", phases=(), modules=()))
    path.write_text(render_report(records, title="Board"), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    visit = Visit(browser, report)
    yield visit.page
    assert visit.said == []
    visit.close()


def column(page: Any, heading: str) -> list[str]:
    """What stands first in the cells under the first heading that starts so."""
    texts = page.evaluate(COLUMN, heading)
    assert isinstance(texts, list)
    return texts


def header(page: Any, name: str) -> Any:
    return page.locator(".board thead button", has_text=name).first


def choose(page: Any, name: str, value: str) -> None:
    page.locator(".filters").get_by_label(name).select_option(label=value)


def status(page: Any) -> str:
    return str(page.locator(".board [role=status]").inner_text())


def test_a_heading_sorts_better_end_first_then_the_other_then_by_rank(page: Any) -> None:
    ranked = column(page, "Perplexity")
    values = sorted(float(text) for text in ranked)
    heading = page.locator(".board thead th", has_text="Perplexity").first
    header(page, "Perplexity").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(page, "Perplexity")] == values
    header(page, "Perplexity").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, "Perplexity")] == values[::-1]
    header(page, "Perplexity").click()
    assert heading.get_attribute("aria-sort") is None
    assert column(page, "Perplexity") == ranked


def test_accuracy_sorts_highest_first_and_what_is_missing_comes_last(page: Any) -> None:
    header(page, "Accuracy").click()
    found = column(page, "Accuracy")
    held = [float(text.removesuffix(" %")) for text in found if text != "–"]
    assert held == sorted(held, reverse=True) and len(held) == 16
    assert found[16:] == ["–"] * 3
    header(page, "Accuracy").click()
    assert column(page, "Accuracy")[-3:] == ["–"] * 3
    header(page, "Prune time").click()
    assert column(page, "Prune time")[-3:] == ["–"] * 3


def test_headings_sort_by_keyboard_names_by_letters_and_patterns_by_sparsity(page: Any) -> None:
    header(page, "Method").focus()
    page.keyboard.press("Enter")
    names = column(page, "Method")
    assert names == sorted(names)
    header(page, "Pattern").focus()
    page.keyboard.press("Space")
    by_sparsity = ["dense"] * 2 + ["50 % unstructured"] * 8 + ["2:4"] * 8 + ["70 % unstructured"]
    assert column(page, "Pattern") == by_sparsity


def test_filters_keep_dense_in_sight_and_say_how_many_are_left(page: Any) -> None:
    assert status(page) == "17 of 17 pruned models"
    choose(page, "Pattern", "2:4")
    assert status(page) == "8 of 17 pruned models"
    assert set(column(page, "Pattern")) == {"dense", "2:4"}
    choose(page, "Model", "org/large, float32")
    assert status(page) == "4 of 17 pruned models"
    ranked = ["dense", "sparsegpt", "llm-barber (wanda, output, 0.1)", "wanda", "magnitude"]
    assert column(page, "Method") == ranked
    choose(page, "Method", "wanda")
    assert column(page, "Method") == ["dense", "wanda"]
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('.board [role=status]').textContent.startsWith('17 of')")


def test_sparsity_bounds_and_the_best_only(page: Any) -> None:
    low, high = page.get_by_label("Sparsity from"), page.get_by_role("spinbutton", name="to %")
    low.fill("60")
    assert status(page) == "1 of 17 pruned models"
    assert sorted(column(page, "Pattern")) == ["70 % unstructured", "dense", "dense"]
    low.fill("")
    high.fill("50")
    assert status(page) == "16 of 17 pruned models"
    page.get_by_label("best and tied only").check()
    marked = page.locator(".board tbody tr").evaluate_all(
        "rows => rows.map(r => r.textContent.includes('dense') || r.querySelector('.mark') !== null)"
    )
    assert all(marked) and len(marked) < 18
    low.fill("99")
    high.fill("")
    choose(page, "Model", "org/small, float32")
    assert status(page) == "0 of 17 pruned models"


def test_sorting_goes_on_under_a_filter(page: Any) -> None:
    header(page, "Prune time").click()
    choose(page, "Pattern", "2:4")
    times = [float(text.removeprefix("< ")) for text in column(page, "Prune time") if text != "–"]
    assert times == sorted(times) and len(times) == 8


@pytest.fixture(scope="module")
def long_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "report.html"
    records = [make_record("dense", modules=())]
    for i in range(N_SPARSITIES):
        shared = {"ppl_factor": 1 + i / 10, "modules": ()}
        records += [make_record(kind, f"{0.3 + i / 100:.2f}", **shared) for kind in KINDS]
    path.write_text(render_report(records, title="Long"), encoding="utf-8")
    return path


def test_a_long_table_is_paged_and_sorts_over_all_pages(browser: Any, long_report: Path) -> None:
    n = len(KINDS) * N_SPARSITIES
    visit = Visit(browser, long_report, wait_for="html[data-drawn]")
    page = visit.page
    rows = page.locator(".board tbody tr")
    back, on = (page.get_by_role("button", name=name) for name in ("Previous", "Next"))
    assert rows.count() == 100
    assert status(page) == f"Rows 1 to 100 of {n + 1}; {n} of {n} pruned models"
    assert back.is_disabled() and on.is_enabled()
    on.click()
    on.click()
    assert status(page).startswith(f"Rows 201 to {n + 1} of {n + 1}")
    assert rows.count() == n + 1 - 200 and on.is_disabled()
    header(page, "Perplexity").click()
    first = [float(text.replace(",", "")) for text in column(page, "Perplexity")]
    assert len(first) == 100 and first[0] == 25.0 and first == sorted(first)
    page.get_by_label("Sparsity from").fill("85")
    assert rows.count() == 1 + 4 * 6 and not on.is_visible()
    assert axe_violations(page) == []
    assert "Charts, tasks, answers" in page.locator(".notes").inner_text()
    # On paper there is nothing to turn over: all that pass the filter are printed.
    page.get_by_label("Sparsity from").fill("")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert rows.count() == n + 1
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert rows.count() == 100
    assert visit.said == []


def test_on_paper_a_filter_is_told_and_so_is_what_does_not_fit(browser: Any, report: Path) -> None:
    visit = Visit(browser, report)
    page = visit.page
    choose(page, "Pattern", "2:4")
    page.get_by_label("best and tied only").check()
    page.get_by_label("Sparsity from").fill("40")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    told = status(page)
    assert page.locator(".board [role=status]").is_visible()
    assert "filtered by: Pattern 2:4, Sparsity from 40, best and tied only" in told
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert "filtered" not in status(page)


def test_without_javascript_the_first_page_and_all_panels_are_there(browser: Any, long_report: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(long_report.as_uri())
    assert page.locator(".board tbody tr").count() == 100
    assert not page.locator(".filters").is_visible()
    n_rows = len(KINDS) * N_SPARSITIES + 1
    assert f"The first 100 of {n_rows} rows" in page.locator(".board").inner_text()
    assert page.locator("[data-tab]:visible").count() >= 2


def test_many_settings_are_chosen_from_a_list(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "many.html"
    models = [f"m{i}" for i in range(8)]
    records = [make_record(kind, model_name=m, modules=()) for m in models for kind in ("dense", "wanda")]
    path.write_text(render_report(records, title="Many"), encoding="utf-8")
    visit = Visit(browser, path, wait_for="html[data-drawn]")
    page = visit.page
    chosen = page.locator(".settings > .chooser select")
    assert [page.locator(f"#setting-{i}").is_visible() for i in (1, 2)] == [True, False]
    chosen.select_option(label="m1, float32")
    assert [page.locator(f"#setting-{i}").is_visible() for i in (1, 2)] == [False, True]
    page.evaluate("location.hash = 'setting-5-cost'")
    page.wait_for_function("!document.getElementById('setting-5').closest('[data-tab]').hidden")
    assert chosen.evaluate("e => e.selectedIndex") == 4
    page.wait_for_function(
        "[...document.querySelectorAll('[data-spec]')].every(e => !e.clientWidth || e.dataset.width)"
    )
    assert axe_violations(page) == [] and visit.said == []
