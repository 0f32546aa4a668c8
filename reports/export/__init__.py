"""Exports: the numbers of a report for papers, spreadsheets and READMEs.

Each function takes records and returns what files are to hold; nothing is written here.
"""

from reports.export.csv import export_csv
from reports.export.figures import export_figures
from reports.export.latex import export_latex
from reports.export.markdown import export_markdown

__all__ = ["export_csv", "export_figures", "export_latex", "export_markdown"]
