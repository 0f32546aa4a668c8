"""The report in a real browser: it draws, is quiet, fits, is open to all, and foreign text does nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reports import render_report
from reports.page.html import render_waiting
from reports.page.run_status import PATIENCE_S, RELOAD_S, run_status, with_status
from tests.reports.browser import TAKEN, Visit, axe_violations, ink_and_ground
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import measured_quickstart, measured_record

pytestmark = pytest.mark.browser

HOSTILE = f"{TAKEN}{{{{ 7*7 }}}}{{% raw %}}\u0007\u202e\u2066\"'&amp;\\[x].y"
SHOWN = HOSTILE.replace("\u0007", "\\u0007").replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
"""How the page writes it: what nobody sees is written out."""
DRAWN = "html[data-drawn]"
OPEN_ALL = "document.querySelectorAll('details').forEach((e) => (e.open = true))"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    records = [*measured_quickstart(), failed_record("wanda", "4:8")]
    path.write_text(render_report(records, title="Four ways"), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("width", "scheme", "media"),
    [
        (1280, "light", "screen"),
        pytest.param(360, "dark", "screen", marks=pytest.mark.slow),
        pytest.param(1920, "dark", "screen", marks=pytest.mark.slow),
        pytest.param(1280, "light", "print", marks=pytest.mark.slow),
    ],
)
def test_it_draws_fits_is_quiet_and_passes_the_accessibility_rules(
    browser: Any, report: Path, width: int, scheme: str, media: str
) -> None:
    visit = Visit(browser, report, width=width, scheme=scheme, media=media, wait_for=DRAWN)
    assert visit.said == []
    assert visit.asked == [report.as_uri()]
    seen = visit.page.locator(".chart:visible")
    assert seen.count() == visit.page.locator(".chart:visible svg").count() >= 7
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in seen.all():
        assert chart.evaluate("e => e.scrollWidth - e.clientWidth") <= 1
    ink, ground = ink_and_ground(visit.page)
    assert ("255" in ground) == (scheme == "light") and ground != ink
    visit.page.evaluate(OPEN_ALL)
    assert axe_violations(visit.page) == []
    visit.close()


@pytest.mark.slow
def test_on_paper_no_table_loses_a_column(browser: Any, report: Path) -> None:
    # A4 between its margins.
    visit = Visit(browser, report, width=690, media="print", wait_for=DRAWN)
    tables = visit.page.locator(".scroll:visible")
    wide = tables.evaluate_all(
        "all => all.filter(e => e.firstElementChild.offsetWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    )
    assert tables.count() > 5 and wide == []
    assert not visit.page.locator(".filters, .pager, nav").first.is_visible()
    visit.close()


@pytest.mark.slow
def test_a_point_shows_its_numbers_and_a_name_leads_to_its_configuration(browser: Any, report: Path) -> None:
    page = Visit(browser, report, wait_for=DRAWN).page
    page.locator(".chart svg .mark-symbol.role-mark path").first.hover()
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    assert "95 % interval" in tooltip.inner_text()
    page.locator("tbody th a", has_text="sparsegpt").first.click()
    page.wait_for_selector("details.cell[open]")
    assert '"method": "sparsegpt"' in page.locator("details.cell[open] pre").inner_text()


@pytest.mark.slow
def test_tabs_are_chosen_by_mouse_keys_and_links(browser: Any, report: Path) -> None:
    page = Visit(browser, report, wait_for=DRAWN).page
    time, memory = (page.get_by_role("tab", name=name) for name in ("Prune time", "Host memory"))
    assert page.get_by_role("tabpanel", name="Prune time").locator("svg").is_visible()
    assert not page.locator("#setting-1-chart-memory").is_visible()
    memory.click()
    page.locator("#setting-1-chart-memory svg").wait_for()
    assert (memory.get_attribute("aria-selected"), time.get_attribute("aria-selected")) == ("true", "false")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "Prune time"
    assert not page.locator("#setting-1-chart-memory").is_visible()
    page.evaluate("location.hash = 'setting-1-chart-memory'")
    page.locator("#setting-1-chart-memory svg").wait_for()
    assert memory.get_attribute("aria-selected") == "true"


@pytest.mark.slow
def test_the_same_link_leads_to_a_hidden_tab_again_and_odd_anchors_do_no_harm(
    browser: Any, tmp_path: Path
) -> None:
    path = tmp_path / "two.html"
    records = [
        make_record(k, dtype=d) for d in ("float32", "bfloat16") for k in ("dense", "wanda", "sparsegpt")
    ]
    path.write_text(render_report(records, title="Two"), encoding="utf-8")
    visit = Visit(browser, path, wait_for=DRAWN)
    page = visit.page
    first, second = page.locator("#setting-1"), page.locator("#setting-2")
    link = page.locator("nav a", has_text="Quality against cost")
    for _ in range(2):
        page.get_by_role("tab", name="smollm2-135m, float32").click()
        assert second.is_visible() and not first.is_visible()
        link.click()
        page.wait_for_function("!document.getElementById('setting-1').closest('[data-tab]').hidden")
    page.evaluate("location.hash = '%'")
    assert visit.said == []
    # On paper all settings and all figures stand one after another, drawn.
    page.wait_for_selector("html[data-printable]", state="attached")
    page.emulate_media(media="print")
    assert first.is_visible() and second.is_visible()
    charts = page.locator(".chart")
    assert charts.count() == page.locator(".chart:visible > svg").count() >= 6
    assert page.locator("#setting-2-chart-memory").is_visible()


@pytest.mark.slow
def test_everything_is_reached_by_keyboard(browser: Any, report: Path) -> None:
    page = Visit(browser, report, width=360, wait_for=DRAWN).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the ranking"
    reached = set()
    for _ in range(50):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert {"scroll ranking", "SELECT", "INPUT", "BUTTON", "A"} <= reached


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_answers_open_by_keyboard_side_by_side(browser: Any, report: Path, width: int) -> None:
    page = Visit(browser, report, width=width, wait_for=DRAWN).page
    assert page.locator("details.said[open]").count() == 0
    page.locator("details.said summary").first.focus()
    page.keyboard.press("Enter")
    opened = page.locator("details.said[open]")
    assert opened.count() == 1 and opened.locator("mark").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dense, pruned = (said.bounding_box() for said in opened.locator("dl > div:not(.prompt)").all()[:2])
    if width == 1280:
        assert dense["y"] == pruned["y"] and dense["x"] < pruned["x"]
    else:
        assert dense["x"] == pruned["x"] and dense["y"] < pruned["y"]


@pytest.mark.slow
def test_a_configuration_is_copied(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, wait_for=DRAWN)
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.page
    page.locator("details.cell > summary").first.click()
    button = page.locator("details.cell[open] [data-copy]")
    button.click()
    page.wait_for_function("e => e.textContent !== 'Copy'", arg=button.element_handle())
    # A page opened from a file may not reach the clipboard; then the text is selected, ready to be copied.
    copied = page.evaluate("navigator.clipboard.readText().catch(() => String(getSelection()))")
    assert '"model": "smollm2-135m"' in copied


@pytest.mark.slow
def test_hostile_text_shows_as_text(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    settings = {"initial": HOSTILE}
    records = [
        make_record("dense", model_name=HOSTILE),
        make_record("barber-wanda", model_name=HOSTILE, settings=settings, warnings=(HOSTILE,)),
        failed_record(message=HOSTILE),
        measured_record("dense", model_name=HOSTILE, answers=["plain"] * 48, tasks=(HOSTILE,)),
        measured_record("wanda", model_name=HOSTILE, answers=[HOSTILE] * 48, tasks=(HOSTILE,)),
        measured_record("wanda", "0.7", model_name=HOSTILE, answers=[HOSTILE] * 48, tasks=(HOSTILE,)),
    ]
    path.write_text(render_report(records, title=HOSTILE, problems=[HOSTILE]), encoding="utf-8")
    visit = Visit(browser, path, wait_for=DRAWN)
    page = visit.page
    assert visit.said == [] and visit.asked == [path.as_uri()]
    assert page.locator("img").count() == 0
    page.evaluate(OPEN_ALL)
    for place in ("h1", ".notes", ".board tbody", "details.said", ".failed"):
        assert SHOWN in page.locator(place).first.inner_text(), place
    assert any(SHOWN in text for text in page.locator("details.cell ul").all_inner_texts())
    assert page.title() == SHOWN
    page.locator(".chart svg .mark-symbol.role-mark path").first.hover()
    assert SHOWN in page.locator("#vg-tooltip-element").inner_text()
    assert page.title() == SHOWN and "\u202e" not in page.content()


@pytest.mark.slow
def test_the_page_of_a_run_follows_it_and_knows_when_it_ended_early(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    whole = render_report(quickstart(), title="mine")

    def write(**status: Any) -> None:
        page = with_status(whole, run_status(n_failed=0, n_cells=7, **status))
        assert page is not None
        path.write_text(page)

    now = datetime.now(UTC)
    write(n_done=3, doing=["m wanda 0.5: prune"], running=True, written=now)
    context = browser.new_context()
    page = context.new_page()
    page.clock.install(time=now)
    page.goto(path.as_uri())
    banner = page.locator(".run-status")

    def after(seconds: int) -> str:
        for _ in range(seconds):
            page.clock.run_for(1000)
            banner.inner_text()  # waits for a page that is being loaded
        return str(banner.inner_text())

    assert "3 of 7 cells, running: m wanda 0.5: prune." in banner.inner_text()
    write(n_done=4, running=True, written=now)
    assert "4 of 7 cells, running." in after(RELOAD_S + 2)
    # Killed: nobody writes it any more, so it says so, and reloads no longer.
    ended = after(PATIENCE_S + 2 * RELOAD_S)
    assert "4 of 7 cells, ended early. Last written" in ended
    assert "running" not in ended
    assert axe_violations(page) == []
    write(n_done=5, running=True, written=now)
    assert "4 of 7 cells" in after(3 * RELOAD_S)
    context.close()


@pytest.mark.slow
def test_a_page_of_long_ago_says_at_once_that_the_run_ended_early(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    long_ago = datetime.now(UTC) - timedelta(days=1)
    status = run_status(n_done=5, n_failed=1, n_cells=7, running=True, written=long_ago)
    path.write_text(with_status(render_waiting(title="mine"), status) or "")
    visit = Visit(browser, path)
    assert "5 of 7 cells, 1 failed, ended early." in visit.page.locator(".run-status").inner_text()
    assert visit.said == []
    visit.close()


@pytest.mark.slow
def test_a_page_that_is_used_does_not_reload_but_offers_to(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    whole = render_report(quickstart(), title="mine")
    now = datetime.now(UTC)
    path.write_text(
        with_status(whole, run_status(n_done=3, n_failed=0, n_cells=7, running=True, written=now)) or ""
    )
    context = browser.new_context()
    page = context.new_page()
    page.clock.install(time=now)
    page.goto(path.as_uri())
    page.get_by_role("button", name="Perplexity").first.click()
    path.write_text(
        with_status(whole, run_status(n_done=4, n_failed=0, n_cells=7, running=True, written=now)) or ""
    )
    page.clock.run_for(1000 * (PATIENCE_S + 10 * RELOAD_S))
    assert "3 of 7 cells, running" in page.locator(".run-status").inner_text()
    assert page.locator("[aria-sort]").count() == 1
    page.get_by_role("button", name="Load the newest").click()
    page.locator("text=4 of 7 cells").wait_for()
    context.close()
