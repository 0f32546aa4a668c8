"""Turns records into pages, charts and tables. Reports only read records and never load a model.

The heavy libraries that they use (Altair, pandas, Jinja2) are imported only when a report is requested.
"""

from typing import TYPE_CHECKING

from methods.lazy import lazily

if TYPE_CHECKING:
    from reports.page.html import render_report
    from reports.rankings.comparison import ReportError, compare
    from reports.rankings.frame import metrics_frame, modules_frame, phases_frame

_NAMES = {
    "page.html": ("render_report",),
    "rankings.comparison": ("ReportError", "compare"),
    "rankings.frame": ("metrics_frame", "modules_frame", "phases_frame"),
}
__getattr__, __dir__ = lazily(__name__, _NAMES)

__all__ = ["ReportError", "compare", "metrics_frame", "modules_frame", "phases_frame", "render_report"]
