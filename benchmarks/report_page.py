"""`python -m benchmarks.report_page PAGE`: times opening, sorting and filtering a report in a browser."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.reports.browser import CHROMIUM, FLAGS, Visit

N_REPEATS = 5
CLICK = """(name) => {
    const begun = performance.now();
    const buttons = [...document.querySelectorAll(".board thead button")];
    buttons.find((button) => button.textContent.startsWith(name)).click();
    return performance.now() - begun;
}"""
CHOOSE = """() => {
    const begun = performance.now();
    const list = document.querySelector(".board select");
    list.selectedIndex = (list.selectedIndex + 1) % list.options.length;
    list.dispatchEvent(new Event("input", { bubbles: true }));
    return performance.now() - begun;
}"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Opens the page once and prints the time of each action, the slowest of `N_REPEATS`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__)
    parser.add_argument("page", type=Path, help="a page written by prunebench report")
    page = parser.parse_args(arguments).page
    if CHROMIUM is None:
        parser.error("there is no Chromium on this machine")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        print(table(browser, page.resolve()))
        browser.close()


def table(browser: Any, path: Path) -> str:
    """Measures and formats as Markdown; the time of an action is that of its script, without painting."""
    begun = time.perf_counter()
    visit = Visit(browser, path, wait_for=".board .pager:not([hidden])")
    opened = time.perf_counter() - begun
    status = visit.page.locator(".board [role=status]").first.inner_text()
    actions = {f"sort by {name}": (CLICK, name) for name in ("Perplexity", "Prune time", "Method")}
    actions["filter"] = (CHOOSE, None)
    lines = [
        f"{path.stat().st_size / 1e6:.1f} MB: {status}",
        "",
        "| action | milliseconds |",
        "| --- | ---: |",
        f"| open, until it can be used | {1000 * opened:.0f} |",
    ]
    for name, (script, argument) in actions.items():
        slowest = max(visit.page.evaluate(script, argument) for _ in range(N_REPEATS))
        lines.append(f"| {name} | {slowest:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
