"""Tables and text as GitHub's Markdown, safe for any content."""

from __future__ import annotations

import re

from reports.tables import Table, TableCell
from reports.wording import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$&@])")


def markdown(text: str) -> str:
    """Escapes text so that Markdown shows it on one line, without markup, links or HTML in it."""
    line = " ".join(visible(text).split())
    return _SPECIAL.sub(r"\\\1", line)


def markdown_table(table: Table) -> str:
    """Formats a table with right-aligned numbers; the details of a number follow it in parentheses."""
    headings = [_cell(column.text, column.detail) for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[_marked(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rules, *rows])


def _marked(cell: TableCell) -> str:
    text = _cell(cell.text, cell.detail)
    # Only the number is bold, so that it stands out.
    return (
        text
        if not cell.mark
        else f"**{markdown(cell.text)}**{text.removeprefix(markdown(cell.text))}, {cell.mark}"
    )


def _cell(text: str, detail: str) -> str:
    detail = ", ".join(part for part in detail.split("\n") if part)
    return f"{markdown(text)} ({markdown(detail)})" if detail else markdown(text)


__all__ = ["markdown", "markdown_table"]
