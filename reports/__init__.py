"""Reports: from records to pages. They read records and never touch a model.

The heavy libraries behind them (Altair, pandas, Jinja2) are imported when a report is asked for.
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
