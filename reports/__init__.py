"""Reports: from records to pages. They read records and never touch a model.

The heavy libraries behind them (Altair, pandas, Jinja2) are imported when a report is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.page.html import render_report
    from reports.rankings.comparison import ReportError, compare
    from reports.rankings.frame import metrics_frame, modules_frame, phases_frame

_HOMES = {
    "ReportError": "reports.rankings.comparison",
    "compare": "reports.rankings.comparison",
    "metrics_frame": "reports.rankings.frame",
    "modules_frame": "reports.rankings.frame",
    "phases_frame": "reports.rankings.frame",
    "render_report": "reports.page.html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


__all__ = ["ReportError", "compare", "metrics_frame", "modules_frame", "phases_frame", "render_report"]
