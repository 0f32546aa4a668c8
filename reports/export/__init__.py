"""Exports the numbers of a report for papers, spreadsheets and READMEs.

Each function takes records and returns the contents of files; nothing is written here.
"""

from typing import TYPE_CHECKING

from methods.lazy import lazily

if TYPE_CHECKING:
    from reports.export.csv import export_csv
    from reports.export.figures import export_figures
    from reports.export.latex import export_latex
    from reports.export.markdown import export_markdown

_NAMES = {
    "csv": ("export_csv",),
    "figures": ("export_figures",),
    "latex": ("export_latex",),
    "markdown": ("export_markdown",),
}
__getattr__, __dir__ = lazily(__name__, _NAMES)

__all__ = ["export_csv", "export_figures", "export_latex", "export_markdown"]
