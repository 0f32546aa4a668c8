"""Settings for axes, legends and headers of charts, in the page's own colours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import vl_convert


@lru_cache(maxsize=1)
def chart_library() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script without a `</script>`, which would end its
    element.
    """
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a JavaScript string or expression `<\/` means the same as `</`.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


_TEXT = {"labelColor": "var(--muted)", "titleColor": "var(--ink)", "labelFontSize": 11, "titleFontSize": 12}
THEME: dict[str, Any] = {
    # CSS variables of the page, so that one drawing suits light mode, dark mode and print.
    "font": "system-ui, sans-serif",
    "background": "transparent",
    # For screen readers the page describes the chart as one image, with its data in a table below.
    "mark": {"aria": False},
    "view": {"stroke": "transparent"},
    "facet": {"spacing": {"column": 20, "row": 12}},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
    },
    "legend": {**_TEXT, "orient": "top", "symbolStrokeColor": "var(--ink)"},
    "header": {
        **_TEXT,
        "labelColor": "var(--ink)",
        "labelAnchor": "start",
        "labelLineHeight": 14,
        "labelPadding": 6,
    },
}

__all__ = ["THEME", "chart_library"]
