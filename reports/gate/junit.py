"""The verdict of a gate as JUnit XML, which CI systems show as test results."""

from __future__ import annotations

from xml.etree import ElementTree

from reports.wording import visible
from suite.results.gate import CellVerdict, Verdict
from suite.results.gate.wording import describe


def junit_xml(verdict: Verdict) -> str:
    """Writes one test suite with one test case per metric, or per cell without metrics.

    Worse and newly failing are failures, what could not be compared is an error, costs of another machine are
    skipped.

    Args:
        verdict: the verdict of the run.
    """
    cases = [case for cell in verdict.cells for case in _cases(cell)]
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name="prunebench gate", tests=str(len(cases)))
    for kind in ("failure", "error", "skipped"):
        count = sum(case.find(kind) is not None for case in cases)
        suite.set({"failure": "failures", "error": "errors", "skipped": "skipped"}[kind], str(count))
    suite.extend(cases)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _cases(cell: CellVerdict) -> list[ElementTree.Element]:
    label = cell.label
    if cell.whole is not None:
        return [_case(label, "cell", cell.whole, cell.reason, counts=True)]
    return [
        _case(label, f"{m.name} {m.protocol}".strip(), m.outcome, describe(m), counts=m.counts)
        for m in cell.metrics
    ]


def _case(label: str, name: str, outcome: str, message: str, *, counts: bool) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_xml(label), name=_xml(name))
    if outcome in ("worse", "newly failing"):
        kind = "failure"
    elif outcome == "not comparable":
        kind = "error" if counts else "skipped"
    else:
        return case
    found = ElementTree.SubElement(case, kind, message=_xml(f"{outcome}: {message}"))
    if kind != "skipped":
        found.set("type", outcome)
    return case


def _xml(text: str) -> str:
    """Replaces characters that XML 1.0 does not allow by visible text."""
    shown = visible(text)
    return "".join(c if c >= " " and c not in "\ufffe\uffff" else " " for c in shown)


__all__ = ["junit_xml"]
