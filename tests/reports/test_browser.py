"""The report in a real browser: it draws, it is quiet, it fits, and foreign text does nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reports import render_report
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import measured_quickstart, measured_record

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    records = [*quickstart(), failed_record("wanda", "4:8")]
    path.write_text(render_report(records, title="Four ways"), encoding="utf-8")
    return path


class Visit:
    """A page opened and drawn, with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", timeout=60_000)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light"), (1920, "dark")])
def test_draws_every_chart_without_error_request_or_overflow(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, report, width=width, scheme=scheme)
    assert visit.said == []
    assert visit.asked == [report.as_uri()]
    assert visit.page.locator(".chart svg").count() == 3
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in visit.page.locator(".chart").all():
        assert chart.evaluate("e => e.scrollWidth - e.clientWidth") <= 1
    page_color, ink = visit.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert ("255" in page_color) == (scheme == "light") and page_color != ink


def test_a_point_shows_its_numbers_and_a_name_leads_to_its_configuration(browser: Any, report: Path) -> None:
    page = Visit(browser, report).page
    page.locator(".chart svg .mark-symbol.role-mark path").first.hover()
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    assert "95 % interval" in tooltip.inner_text()
    page.locator("tbody th a", has_text="sparsegpt").first.click()
    page.wait_for_selector("details.cell[open]")
    assert '"method": "sparsegpt"' in page.locator("details.cell[open] pre").inner_text()


def test_scroll_regions_and_summaries_are_reached_by_keyboard(browser: Any, report: Path) -> None:
    page = Visit(browser, report, width=360).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the ranking"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert "scroll ranking" in reached


@pytest.mark.parametrize("width", [360, 1280])
def test_answers_open_by_keyboard_and_the_page_still_fits(browser: Any, tmp_path: Path, width: int) -> None:
    path = tmp_path / "measured.html"
    path.write_text(render_report(measured_quickstart(), title="All of it"), encoding="utf-8")
    visit = Visit(browser, path, width=width)
    assert visit.said == [] and visit.asked == [path.as_uri()]
    page = visit.page
    assert page.locator("details.said[open]").count() == 0
    page.locator("details.said summary").first.focus()
    page.keyboard.press("Enter")
    opened = page.locator("details.said[open]")
    assert opened.count() == 1 and opened.locator("mark").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_do_nothing(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    settings = {"initial": HOSTILE}
    records = [
        make_record("dense", model_name=HOSTILE),
        make_record("barber-wanda", model_name=HOSTILE, settings=settings),
        failed_record(message=HOSTILE),
        measured_record("wanda", model_name=HOSTILE, answers=[HOSTILE] * 48, tasks=(HOSTILE,)),
    ]
    path.write_text(render_report(records, title=HOSTILE), encoding="utf-8")
    visit = Visit(browser, path)
    assert visit.said == []
    assert visit.page.title() == HOSTILE
    assert visit.page.locator("img").count() == 0
    assert HOSTILE in visit.page.locator("h1").inner_text()
    visit.page.locator(".chart svg .mark-symbol.role-mark path").first.hover()
    assert HOSTILE in visit.page.locator("#vg-tooltip-element").inner_text()
    assert visit.page.title() == HOSTILE
