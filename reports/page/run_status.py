"""What stands above the page of a run that has not come to its end: how far it is, or that it ended early."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from jinja2 import PackageLoader

from reports.templating import templates
from reports.wording import counted

RELOAD_S = 10
"""An open page loads itself anew so often."""
PATIENCE_S = 90
"""A page that nobody has written for so long belongs to a run that was killed."""
_REGION = re.compile("(<!-- run status -->).*?(<!-- end of run status -->)", re.DOTALL)
"""Every page has it once, ahead of everything that records hold."""


def run_status(
    *,
    n_done: int,
    n_failed: int,
    n_cells: int,
    doing: Sequence[str] = (),
    running: bool,
    written: datetime | None = None,
) -> str:
    """The banner, as HTML.

    While the run lasts the page reloads itself. If nobody writes it any more (the run was killed, the machine
    is off) it says by itself that the run ended early, and stops reloading.

    Args:
        n_done: cells of the run that have numbers.
        n_failed: cells that have none.
        n_cells: cells of the run.
        doing: what it does at the moment, a line for each cell that runs.
        running: whether it goes on.
        written: when the page was written; now by default.
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
    """The page with another banner (empty: with none); None if it is no page of a report."""
    region = _REGION.search(page)
    if region is None:
        return None
    return f"{page[: region.end(1)]}{status}{page[region.start(2) :]}"


__all__ = ["PATIENCE_S", "RELOAD_S", "run_status", "with_status"]
