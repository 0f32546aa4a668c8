"""The site in a real browser: every kind of page is quiet, fits, asks for its own files, and passes axe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.site import build_site
from tests.reports.browser import Visit, axe_violations, ink_and_ground
from tests.reports.synthetic_site import full_tree

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LONG = "a-name-without-any-place-to-break-" * 4
KINDS = (
    *("index.html", "boards/*.html", "boards/index.html", "models/*.html", "models/index.html"),
    *("methods/*.html", "methods/index.html", "records/*.html", "records/index.html"),
    *("not-ranked.html", "history.html"),
)
VIEWS = [(width, scheme) for width in (360, 1280, 1920) for scheme in ("light", "dark")]
PAPER = 688
"""The width of an A4 sheet inside its margins, in CSS pixels."""
CUT_OFF = """
Array.from(document.querySelectorAll("main *"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".unseen"))
  .map(e => e.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    results, reruns = full_tree(root, "org/alpha", LONG)
    build_site([results], root / "site", title="Board", reruns=[reruns])
    return root / "site"


def of_kind(site: Path, kind: str) -> Path:
    """The page of the kind that has the most on it."""
    index = site / kind.replace("*", "index")
    found = [path for path in site.glob(kind) if "*" not in kind or path != index]
    return max(found, key=lambda path: path.stat().st_size)


def show(visit: Visit, width: int, scheme: str) -> None:
    """The same page in another window: there is no script that would have to see it from the start."""
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.page.emulate_media(media="screen", color_scheme=scheme)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_quiet_fits_and_asks_for_its_own_files_alone(browser: Any, site: Path, kind: str) -> None:
    path = of_kind(site, kind)
    visit = Visit(browser, path)
    for width, scheme in VIEWS:
        show(visit, width, scheme)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
        ink, ground = ink_and_ground(visit.page)
        # The style sheet was found and let in, and it follows the scheme.
        assert ("255" in ground) == (scheme == "light") and ink != ground, scheme
    assert visit.said == []
    assert set(visit.asked) <= {path.as_uri(), (site / "style.css").as_uri(), "data:,"}
    visit.close()


@pytest.mark.parametrize("kind", KINDS)
def test_on_paper_it_is_black_on_white_and_nothing_is_cut_off(browser: Any, site: Path, kind: str) -> None:
    visit = Visit(browser, of_kind(site, kind), width=PAPER, scheme="dark", media="print")
    assert visit.said == []
    assert ink_and_ground(visit.page) == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")
    assert visit.page.evaluate(CUT_OFF) == []
    assert not visit.page.locator("nav").first.is_visible()
    visit.close()


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_in_either_scheme(browser: Any, site: Path, kind: str) -> None:
    visit = Visit(browser, of_kind(site, kind))
    # What is folded is part of the page, and its colours and names count too.
    visit.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for width, scheme in ((1280, "light"), (360, "dark")):
        show(visit, width, scheme)
        assert axe_violations(visit.page) == [], (width, scheme)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.close()


def test_the_first_screen_says_which_method_at_what_cost_and_whether_to_trust_it(
    browser: Any, site: Path
) -> None:
    visit = Visit(browser, site / "index.html", width=1280)
    page = visit.page
    assert page.locator(".answers dt").all_inner_texts() == [
        "Which method?",
        "What does it cost?",
        "Can it be trusted?",
    ]
    first = page.locator("section").first.locator("tbody tr").first
    told = dict(
        zip(
            page.locator("section").first.locator("thead th span").all_inner_texts(),
            first.locator("th, td").all(),
            strict=True,
        )
    )
    for name in ("Method", "Recovery ↑", "Prune time ↓", "Host memory ↓", "Trust"):
        box = told[name].bounding_box()
        assert box["y"] + box["height"] <= 900 and box["x"] + box["width"] <= 1280, name
        assert told[name].inner_text().strip(), name
    visit.close()


def test_a_reader_gets_from_the_board_to_the_record_by_keyboard(browser: Any, site: Path) -> None:
    visit = Visit(browser, site / "index.html", width=360)
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.get_by_role("link", name="magnitude").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/methods/magnitude.html")
    page.locator("tbody th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/records/*.html")
    assert "magnitude" in page.locator("h1").inner_text()
    visit.close()
