"""What the contract suite tried, counted for the end of a test run."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from methods.conformance import FAMILIES, HARD, Case, Outcome, Verdict
from methods.registry import names

PROPERTY = "contract"


@dataclass(frozen=True)
class Entry:
    """One case that was tried."""

    method: str
    label: str
    family: str
    pattern: str
    situation: str
    verdict: str
    reason: str


def note(node: Any, case: Case, outcome: Outcome) -> None:
    """Hands one outcome to the end of the run, through another process where tests run in several."""
    reason = "broken, see above" if outcome.broken else outcome.refusal
    node.user_properties.append(
        (
            PROPERTY,
            [
                case.method.name,
                case.label,
                case.family.name,
                case.pattern,
                case.situation.name,
                outcome.verdict.value,
                reason,
            ],
        )
    )


def entries(reports: Iterable[Any]) -> list[Entry]:
    """What `note` handed over, from pytest's reports."""
    return [
        Entry(*value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for key, value in report.user_properties
        if key == PROPERTY
    ]


def lines(found: list[Entry]) -> Iterator[str]:
    """The tables: how many cases were kept, and what was not kept with its reason on the same line."""
    hard_names = [situation.name for situation in HARD]
    ordinary = [entry for entry in found if entry.situation not in hard_names]
    hard = [entry for entry in found if entry.situation in hard_names]
    tried = {entry.method for entry in found}
    methods = [name for name in names() if name in tried]
    if ordinary:
        by_family = sorted(ordinary, key=lambda entry: list(FAMILIES).index(entry.family))
        yield from _table("family", [(entry.family, entry) for entry in by_family], methods)
        yield (
            f"{len(methods)} methods in {_n(entry.label for entry in ordinary)} variants x "
            f"{_n(entry.pattern for entry in ordinary)} patterns x "
            f"{_n(entry.family for entry in ordinary)} families: {_totals(ordinary)}"
        )
    if hard:
        yield ""
        order = sorted(hard, key=lambda entry: hard_names.index(entry.situation))
        yield from _table("hard input", [(entry.situation, entry) for entry in order], methods)
        yield f"hard inputs on {_n(entry.family for entry in hard)} families: {_totals(hard)}"


def _table(heading: str, rows: list[tuple[str, Entry]], methods: list[str]) -> Iterator[str]:
    width = max(len(heading), *(len(name) for name, _ in rows))
    columns = [max(len(method), 7) for method in methods]
    yield "  ".join([heading.ljust(width), *(m.rjust(w) for m, w in zip(methods, columns, strict=True))])
    for name in dict.fromkeys(name for name, _ in rows):
        of_row = [entry for row, entry in rows if row == name]
        cells = [
            _cell([entry for entry in of_row if entry.method == method]).rjust(w)
            for method, w in zip(methods, columns, strict=True)
        ]
        yield "  ".join([name.ljust(width), *cells, _reasons(of_row)]).rstrip()


def _cell(of_method: list[Entry]) -> str:
    kept = sum(entry.verdict == Verdict.KEPT for entry in of_method)
    return f"{kept}+{len(of_method) - kept}" if kept < len(of_method) else str(kept)


def _reasons(of_row: list[Entry]) -> str:
    """Why the second number of a cell stands where it does; refusals that differ in N:M only are one."""
    counted = Counter(
        f"{entry.verdict}: {re.sub(r'[0-9]+:[0-9]+', 'N:M', entry.reason)}"
        for entry in of_row
        if entry.verdict != Verdict.KEPT
    )
    return "; ".join(f"{n} {reason}" for reason, n in counted.items())


def _totals(found: list[Entry]) -> str:
    by_verdict = Counter(entry.verdict for entry in found)
    return ", ".join(f"{by_verdict[verdict.value]} {verdict.value}" for verdict in Verdict)


def skipped(reports: Iterable[Any]) -> list[str]:
    """A line for each case that was not tried, with its reason."""
    return [
        f"skipped: {report.nodeid}: {report.longrepr[-1] if report.longrepr else 'without a reason'}"
        for report in reports
        if "test_promises_are_kept" in report.nodeid
    ]


def _n(values: Iterable[str]) -> int:
    return len(set(values))
