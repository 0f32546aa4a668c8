"""The site in a real browser: it is quiet, asks for its own files alone, fits, and follows the scheme."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reports.site import build_site
from tests.reports.synthetic_site import dense_record, failed, site_record, write

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
LONG = "a-name-without-any-place-to-break-" * 5


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for day in range(1, 9):
        level = 3.5 if day < 5 else 3.7
        code = site_record().code.model_copy(update={"source_digest": f"{day}" * 64})
        nll = (level, level + 0.1, level - 0.1, level)
        write(root / "results" / f"{day}", site_record("wanda", nll=nll, day=day, code=code))
    models = ("org/alpha", HOSTILE, LONG)
    for place, model in enumerate(models):
        records = [site_record(method, model) for method in ("magnitude", HOSTILE, LONG)]
        write(root / "results" / f"model-{place}", dense_record(model), *records)
    write(root / "results" / "failed", failed("sparsegpt", HOSTILE))
    build_site([root / "results"], root / "site", title="Board")
    return root / "site"


def chosen(site: Path) -> list[Path]:
    """The first page of every kind, and those with a hostile and a long name."""
    single = [site / name for name in ("index.html", "history.html", "not-ranked.html")]
    folders = ("boards", "models", "methods", "records")
    return [*single, *(path for folder in folders for path in sorted((site / folder).glob("*.html"))[:4])]


@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "dark"), (360, "light"), (1280, "dark"), (1280, "light")]
)
def test_every_kind_of_page_is_quiet_fits_and_asks_for_its_style_alone(
    browser: Any, site: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    paths = chosen(site)
    for path in paths:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.title() != "taken"
        ground, ink, face = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, "
            "getComputedStyle(document.body).fontFamily]"
        )
        # The style sheet was found and let in, and it follows the scheme.
        assert ("255" in ground) == (scheme == "light") and ground != ink and "system-ui" in face
    assert said == []
    expected = {path.as_uri() for path in (*paths, site / "style.css")} | {"data:,"}
    assert asked <= expected
    context.close()


def test_a_reader_gets_from_the_board_to_the_record_by_keyboard(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.get_by_role("link", name="magnitude").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/methods/magnitude.html")
    page.locator("tbody th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/records/*.html")
    assert "magnitude" in page.locator("h1").inner_text()
    page.close()
