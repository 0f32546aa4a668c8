"""The table at the end of a test run counts what was tried, and gives every reason on its line."""

from types import SimpleNamespace

from methods.conformance import FAMILIES, HARD, ORDINARY, Broken, Case, Outcome, Verdict
from methods.registry import build
from tests.contract_table import entries, lines, note, skipped


def report_of(family: str, pattern: str, situation, outcome: Outcome) -> SimpleNamespace:
    node = SimpleNamespace(user_properties=[("other", 1)])
    note(node, Case(build("wanda"), "wanda[x=1]", FAMILIES[family], pattern, situation), outcome)
    return SimpleNamespace(when="call", user_properties=node.user_properties)


def test_the_table_counts_and_gives_reasons():
    kept, refused = Outcome(Verdict.KEPT), Outcome(Verdict.REFUSED, refusal="pattern 2:4 is not for me")
    broken = Outcome(Verdict.BROKEN, broken=Broken(1, "seen", "advice"))
    found = entries(
        [
            report_of("gpt2", "0.5", ORDINARY[0], kept),
            report_of("gpt2", "2:4", ORDINARY[0], refused),
            report_of("gpt2", "4:8", ORDINARY[0], refused),
            report_of("llama", "0.5", ORDINARY[0], kept),
            report_of("llama", "0.5", HARD[0], broken),
            SimpleNamespace(when="setup", user_properties=[]),
        ]
    )
    assert list(lines(found)) == [
        "family    wanda",
        "llama         1",
        "gpt2        1+2  2 refused: pattern N:M is not for me",
        "1 methods in 1 variants x 3 patterns x 2 families: 2 kept, 2 refused, 0 broken",
        "",
        "hard input    wanda",
        "sparsity-0      0+1  1 broken: broken, see above",
        "hard inputs on 1 families: 0 kept, 0 refused, 1 broken",
    ]


def test_a_skip_has_a_line_with_its_reason():
    reports = [
        SimpleNamespace(
            nodeid="test_contract.py::test_promises_are_kept[x]", longrepr=("file", 1, "no model")
        ),
        SimpleNamespace(nodeid="test_browser.py::test_page", longrepr=("file", 1, "no browser")),
    ]
    assert skipped(reports) == ["skipped: test_contract.py::test_promises_are_kept[x]: no model"]
