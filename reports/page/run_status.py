"""The banner on the page of an unfinished run: its progress, or that it ended early."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from jinja2 import PackageLoader

from reports.templating import templates
from reports.wording import counted

RELOAD_S = 10
"""Seconds after which an open page reloads itself."""
PATIENCE_S = 90
"""A page that was not rewritten for this many seconds belongs to a run that was killed."""
_REGION = re.compile("(<!-- run status -->).*?(<!-- end of run status -->)", re.DOTALL)
"""Matches exactly once per page, before all text from records."""


def run_status(
    *,
    n_done: int,
    n_failed: int,
    n_cells: int,
    doing: Sequence[str] = (),
    running: bool,
    written: datetime | None = None,
) -> str:
    """Renders the banner as HTML.

    The page reloads itself while the run lasts. If it is no longer rewritten (the run was killed, the machine
    is off), it shows that the run ended early, and stops reloading.

    Args:
        n_done: number of cells of the run with numbers.
        n_failed: number of cells without numbers.
        n_cells: number of cells of the run.
        doing: present activity, one line per running cell.
        running: whether the run continues.
        written: when the page was written; by default now.
    """
    written = written or datetime.now(UTC)
    return (
        templates(PackageLoader("reports"))
        .get_template("run_status.html.j2")
        .render(
            cells=f"{n_done:,} of {counted(n_cells, 'cell')}",
            n_failed=n_failed,
            doing="; ".join(doing),
            running=running,
            written=written.isoformat(timespec="seconds"),
            written_text=f"{written.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
            reload_ms=1000 * RELOAD_S,
            patience_ms=1000 * PATIENCE_S,
        )
    )


def with_status(page: str, status: str) -> str | None:
    """Replaces the banner of a page (removes it if `status` is empty); None if it is not a report page."""
    region = _REGION.search(page)
    if region is None:
        return None
    return f"{page[: region.end(1)]}{status}{page[region.start(2) :]}"


__all__ = ["PATIENCE_S", "RELOAD_S", "run_status", "with_status"]
