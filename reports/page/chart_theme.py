"""How the library draws what is no data: axes, legends and headers in the page's own colours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import vl_convert


@lru_cache(maxsize=1)
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; it holds no `</script>` that would end its element."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a JavaScript string or expression `<\/` means the same as `</`.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


_TEXT = {"labelColor": "var(--muted)", "titleColor": "var(--ink)", "labelFontSize": 11, "titleFontSize": 12}
THEME: dict[str, Any] = {
    # Variables of the page's style, so that one drawing serves light, dark and print.
    "font": "system-ui, sans-serif",
    "background": "transparent",
    # The page names the chart as one image, with its data as a table beneath.
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
