"""A page opened in a real browser: what it said, what it asked for, and what axe-core finds in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
TAKEN = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
"""Foreign text that would take over the page's title if it ran."""


class Visit:
    """A page opened, with what it said and asked for since.

    Args:
        browser: Playwright's.
        path: of the page.
        width: of the window, in pixels.
        scheme: `light` or `dark`.
        media: `screen` or `print`.
        wait_for: a selector that is there once the page is ready.
    """

    def __init__(
        self,
        browser: Any,
        path: Path,
        *,
        width: int = 1280,
        scheme: str = "light",
        media: str = "screen",
        wait_for: str = "html",
    ) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.emulate_media(media=media, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(wait_for, timeout=1000 * PATIENCE_S, state="attached")

    def close(self) -> None:
        """Frees the window."""
        self.context.close()


def axe_violations(page: Any) -> list[str]:
    """What axe-core's accessibility rules find on the page: rule, impact and the elements, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found
    ]


def ink_and_ground(page: Any) -> tuple[str, str]:
    """The colours of the page's text and of what lies under it."""
    ink, ground = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    return ink, ground
