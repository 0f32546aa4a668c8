"""Foreign text on the site, in a real browser: it reads as stored, runs nothing and reorders nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.site import build_site
from reports.site.files.links import slug
from suite.results.records.record import Failure
from tests.reports.browser import TAKEN, Visit
from tests.reports.synthetic_site import dense_record, failed, measured, site_record, write

pytestmark = [pytest.mark.slow, pytest.mark.browser]

MARKERS = "{{ 7*7 }}{% raw %}{# gone #}"
QUOTES = "\"'`&amp;<b>"
INVISIBLE = "\u0007\u202eevil\u202c\u2066x\u2069\u200b\u001b"
WRITTEN_OUT = "\\u0007\\u202eevil\\u202c\\u2066x\\u2069\\u200b\\u001b"
HOSTILE = f"{TAKEN}{QUOTES}{MARKERS}{INVISIBLE}"
SHOWN = f"{TAKEN}{QUOTES}{MARKERS}{WRITTEN_OUT}"
"""How `HOSTILE` reads on a page."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    results = root / "results"
    pruned = [site_record("llm-barber", HOSTILE, settings={"initial": value}) for value in (HOSTILE, "wanda")]
    write(results / "ranked", dense_record(HOSTILE), *pruned, site_record(HOSTILE, HOSTILE))
    write(results / "measured", *measured(HOSTILE, prompt=HOSTILE, text=f"{HOSTILE} said"))
    broken = failed("sparsegpt", HOSTILE, model=HOSTILE)
    traceback = Failure(phase=HOSTILE, error="Error", message=HOSTILE, traceback=f"Traceback\n{HOSTILE}\n")
    write(results / "failed", broken.model_copy(update={"failure": traceback}).sealed())
    name = f"{HOSTILE.replace('/', '')[:60]}--0.5--00000001.json"
    (results / name).write_text("{", encoding="utf-8")
    build_site([results], root / "site", title=HOSTILE)
    return root / "site"


def records(site: Path, text: str) -> list[Path]:
    """The records whose page has some text in its source."""
    found = sorted((site / "records").glob("[0-9a-f]*.html"))
    return [path for path in found if text in path.read_text(encoding="utf-8")]


def opened(browser: Any, path: Path) -> Visit:
    """The page with everything unfolded."""
    visit = Visit(browser, path)
    visit.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    return visit


def test_on_no_page_does_foreign_text_become_anything_else(browser: Any, site: Path) -> None:
    paths = sorted(site.rglob("*.html"))
    assert len(paths) > 20
    visit = Visit(browser, paths[0])
    for path in paths:
        visit.page.goto(path.as_uri())
        assert visit.page.title().endswith(SHOWN), path
        assert visit.page.locator("script, img, b").count() == 0, path
        text = visit.page.evaluate("document.documentElement.textContent")
        assert not set(INVISIBLE) - set("evilx") & set(text), path
        assert SHOWN in text, path
    assert visit.said == []
    assert set(visit.asked) <= {path.as_uri() for path in (*paths, site / "style.css")} | {"data:,"}
    visit.close()


def test_the_names_of_a_model_and_of_a_method_are_their_headings(browser: Any, site: Path) -> None:
    for folder in ("models", "methods"):
        visit = opened(browser, site / folder / f"{slug(HOSTILE)}.html")
        assert visit.page.locator("h1").inner_text() == SHOWN
        visit.close()


def test_settings_tell_two_rows_of_a_board_apart(browser: Any, site: Path) -> None:
    visit = opened(browser, site / "index.html")
    rows = visit.page.locator("section").first.locator("tbody th").all_inner_texts()
    assert any("llm-barber" in row and SHOWN in row for row in rows)
    assert any("llm-barber" in row and "wanda" in row for row in rows)
    visit.close()


def test_a_prompt_and_its_answer_stand_on_the_page_of_the_record(browser: Any, site: Path) -> None:
    found = records(site, 'id="answers"')
    assert len(found) == 2
    for path in found:
        visit = opened(browser, path)
        said = visit.page.locator("details.said").first
        assert said.locator("dd").all_inner_texts() == [SHOWN, f"{SHOWN} said"]
        assert MARKERS in said.locator("dd").first.inner_text()
        visit.close()


def test_why_a_cell_failed_is_read_as_it_was_said(browser: Any, site: Path) -> None:
    (path,) = records(site, 'id="failure"')
    visit = opened(browser, path)
    section = visit.page.locator("section", has=visit.page.locator("#failure"))
    assert section.locator("p").inner_text() == f"Error in phase {SHOWN}: {SHOWN}"
    assert section.locator("pre").inner_text() == f"Traceback\n{SHOWN}\n"
    visit.page.goto((site / "not-ranked.html").as_uri())
    assert f"Error in phase {SHOWN}: {SHOWN}" in visit.page.locator("main").inner_text()
    visit.close()
