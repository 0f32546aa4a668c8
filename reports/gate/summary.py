"""The verdict of a gate as Markdown, for a comment on a pull request or the summary of a CI step."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from reports.wording import MISSING, counted, listed, visible
from suite.results.gate import CellVerdict, Verdict
from suite.results.gate.wording import describe
from suite.results.records.record import CodeVersion

MAX_ROWS = 60
"""Maximum number of rows: a comment takes 65,536 characters. Further rows are only counted."""

_HEADLINES = {
    0: "No regression",
    1: "Regression",
    3: "Not everything could be compared",
}
_MARKS = {"newly failing": "🔴", "worse": "🔴", "not comparable": "🟡", "better": "🟢", "same": "⚪"}


def gate_markdown(verdict: Verdict) -> str:
    """Writes headline, counts, a table of what changed, and which code was compared with which.

    Args:
        verdict: the verdict of the run.
    """
    rows = [row for cell in verdict.cells for row in _rows(cell)]
    counts = listed([f"{n} {outcome}" for outcome, n in verdict.counts.items()])
    lines = [
        f"## prunebench: {_HEADLINES[verdict.exit_code]}",
        "",
        f"{counts} in {counted(len(verdict.cells), 'cell')}. {_masks(verdict.cells)}",
    ]
    if rows:
        lines += ["", "| | cell | metric | what |", "|---|---|---|---|", *rows[:MAX_ROWS]]
        if len(rows) > MAX_ROWS:
            lines += ["", f"{counted(len(rows) - MAX_ROWS, 'more row')} in the full output."]
    if verdict.new:
        lines += ["", f"New, with nothing to compare: {listed([_code(cell.label) for cell in verdict.new])}."]
    lines += ["", *(f"> {_text(remark)}" for remark in verdict.remarks)]
    lines += [
        f"Baseline {_made_by(verdict.baseline_code)}; candidate {_made_by(verdict.candidate_code)}. "
        f"Tolerances: {_code(verdict.tolerances)}; significance {verdict.significance:g} over the whole run."
    ]
    return "\n".join(lines) + "\n"


def _rows(cell: CellVerdict) -> list[str]:
    if cell.whole is not None:
        return [] if cell.whole == "same" else [_row(cell, cell.whole, MISSING, cell.reason)]
    return [
        _row(cell, metric.outcome, f"{metric.name} {metric.protocol}".strip(), describe(metric))
        for metric in cell.metrics
        if metric.outcome != "same" and metric.counts
    ]


def _row(cell: CellVerdict, outcome: str, metric: str, what: str) -> str:
    return f"| {_MARKS[outcome]} {outcome} | {_code(cell.label)} | {_code(metric)} | {_text(what)} |"


def _masks(cells: Iterable[CellVerdict]) -> str:
    known = [cell.same_masks for cell in cells if cell.same_masks is not None]
    if not known:
        return ""
    if all(known):
        return "All masks are the same, to the bit."
    return f"{counted(known.count(False), 'cell')} of {len(known)} pruned other weights than before."


def _made_by(codes: tuple[CodeVersion, ...]) -> str:
    described = []
    for code in codes:
        commit = f" at {code.git_commit[:9]}" if code.git_commit else ""
        changed = " with uncommitted changes" if code.git_clean is False else ""
        described.append(f"prunebench {_text(code.prunebench)}{_text(commit)}{changed}")
    return listed(described) or "of unknown code"


def _code(text: str) -> str:
    """Formats `text` as code, whatever it contains: labels include foreign model names."""
    inner = visible(text).replace("`", "'").replace("|", "\\|").replace("\n", " ")
    return f"`{inner}`" if inner.strip() else ""


def _text(text: str) -> str:
    """Escapes `text` so that it contains no markup, mentions or table cells."""
    escaped = html.escape(visible(text), quote=False).replace("\n", " ")
    return re.sub(r"([\\`*_\[\]|~#@])", r"\\\1", escaped)


__all__ = ["MAX_ROWS", "gate_markdown"]
