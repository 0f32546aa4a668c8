"""The output of `check-method`: a bar while it runs, then tables and sentences, or JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from methods.conformance import HARD, PATTERNS, Case, Verdict
from suite.inspection.method_check import MethodCheck, Tried, run_cases

_CELL = {Verdict.KEPT: "ok", Verdict.REFUSED: "refused", Verdict.BROKEN: "BROKEN"}


def run_with_bar(name: str, cases: Sequence[Case], console: Console | None = None) -> MethodCheck:
    """Calls `run_cases`, and shows a progress bar on stderr if that is a terminal."""
    console = console or Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=16, table_column=Column(min_width=8)),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        console=console,
        expand=True,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=len(cases))

        def show(n_done: int, case: Case) -> None:
            described = f"{name} on {case.family.name} at {case.pattern}, {case.situation.name}"
            bar.update(task, completed=n_done, description=described)

        return run_cases(name, cases, show)


def as_text(check: MethodCheck) -> Iterator[str]:
    """Yields the lines of the tables and sentences."""
    ordinary = [tried for tried in check.tried if not tried.is_hard]
    patterns = [pattern for pattern in PATTERNS if any(t.case.pattern == pattern for t in ordinary)]
    yield f"{'family':<18}" + "".join(f"{pattern:>9}" for pattern in patterns)
    for family in dict.fromkeys(tried.case.family.name for tried in ordinary):
        of_family = [tried for tried in ordinary if tried.case.family.name == family]
        cells = [_cell([t for t in of_family if t.case.pattern == pattern]) for pattern in patterns]
        yield f"{family:<18}" + "".join(f"{cell:>9}" for cell in cells)
    yield ""
    yield f"{'hard input':<21}{'kept':>5}{'refused':>9}{'broken':>8}   what it is"
    for situation in HARD:
        verdicts = [t.outcome.verdict for t in check.tried if t.case.situation == situation]
        kept, refused, broken = (verdicts.count(verdict) for verdict in Verdict)
        yield f"{situation.name:<21}{kept:>5}{refused:>9}{broken:>8}   {situation.described}"
    yield ""
    for line, cases in _refusals(check).items():
        yield f"refused, {_where(cases)}: {line}"
    for found, cases in check.broken:
        yield f"BROKEN, {_where(cases)}: {found}"
        yield ""
    yield _summary(check)


def as_json(check: MethodCheck) -> dict[str, Any]:
    """Returns the outcome as JSON values."""
    return {
        "method": check.name,
        "holds": check.holds,
        **{verdict.value: check.count(verdict) for verdict in Verdict},
        "cases": [
            {
                "family": tried.case.family.name,
                "pattern": tried.case.situation.pattern or tried.case.pattern,
                "situation": tried.case.situation.name,
                "verdict": tried.outcome.verdict.value,
                "promise": tried.outcome.broken.promise if tried.outcome.broken else None,
                "reason": tried.outcome.reason or None,
            }
            for tried in check.tried
        ],
    }


def _cell(tried: list[Tried]) -> str:
    verdicts = {t.outcome.verdict for t in tried}
    worst = [verdict for verdict in (Verdict.BROKEN, Verdict.REFUSED, Verdict.KEPT) if verdict in verdicts]
    return _CELL[worst[0]] if worst else "-"


def _refusals(check: MethodCheck) -> dict[str, list[Tried]]:
    found: dict[str, list[Tried]] = {}
    for tried in check.tried:
        if tried.outcome.refusal:
            found.setdefault(tried.outcome.refusal, []).append(tried)
    return found


def _where(tried: list[Tried]) -> str:
    families = list(dict.fromkeys(t.case.family.name for t in tried))
    listed = ", ".join(families) if len(families) <= 4 else f"{len(families)} families"
    return f"{len(tried)} case{'s' * (len(tried) > 1)} on {listed}"


def _summary(check: MethodCheck) -> str:
    counts = ", ".join(f"{check.count(verdict)} {verdict.value}" for verdict in Verdict)
    if check.prunes_nothing:
        return f"{check.name}: {counts}. Nothing was pruned: every ordinary case was refused."
    if check.broken:
        n = len({found.promise for found, _ in check.broken})
        return f"{check.name}: {counts}. {n} promise{'s' * (n > 1)} broken; each line above says what to do."
    return f"{check.name}: {counts}. Every promise is kept."


__all__ = ["as_json", "as_text", "run_with_bar"]
