"""A gate's verdict as Markdown and as JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from reports.gate.junit import junit_xml
from reports.gate.summary import MAX_ROWS, gate_markdown
from suite.results.gate import judge
from tests.suite.results.examples import CODE, ENVIRONMENT, make_cell, make_failed
from tests.suite.results.gate.contestants import NLL, costs, losses, record, shifted, side

WORSE = losses(shifted(NLL, 0.1, spread=0.01))
HOSTILE = "evil|`<script>alert(1)</script>`\n@everyone **b** \u202e\x07"


def test_nothing_new_is_two_sentences() -> None:
    text = gate_markdown(judge(side(record()), side(record())))
    assert text.startswith(
        "## prunebench: No regression\n\n4 same in 1 cell. All masks are the same, to the bit.\n"
    )
    assert "|" not in text


def test_what_changed_and_what_made_it_are_shown() -> None:
    code = CODE.model_copy(update={"git_commit": "0123456789abcdef", "git_clean": False})
    verdict = judge(side(record()), side(record(windows=(WORSE,), mask_digest="x", code=code)))
    text = gate_markdown(verdict)
    assert "1 worse and 3 same in 1 cell. 1 cell of 1 pruned other weights than before." in text
    assert "candidate prunebench 0.1.0 at 012345678 with uncommitted changes" in text
    assert text.count("\n| ") == 2, "the table's head and one row"


def test_a_table_too_long_for_a_comment_is_cut_and_counted() -> None:
    cells = [make_cell(settings={"n": n}) for n in range(MAX_ROWS + 5)]
    verdict = judge(
        side(*(record(cell=cell) for cell in cells)), side(*(record(cell=c, windows=(WORSE,)) for c in cells))
    )
    text = gate_markdown(verdict)
    assert text.count("🔴") == MAX_ROWS
    assert "5 more rows in the full output." in text
    assert len(text) < 65_536


def test_names_from_anybody_stay_text() -> None:
    cell = make_cell(model=HOSTILE)
    verdict = judge(side(record(cell=cell)), side(record(cell=cell, windows=(WORSE,))))
    (row,) = [line for line in gate_markdown(verdict).splitlines() if "🔴" in line]
    name = row.split(" | ")[1]
    assert name.startswith("`") and name.endswith("`") and name.count("`") == 2
    assert row.count("|") - row.count("\\|") == 5, "four columns"
    assert "\u202e" not in row and "\x07" not in row
    root = ElementTree.fromstring(junit_xml(verdict).encode())
    assert "<script>" in (root.find(".//testcase") or root[0][0]).get("classname", "")


def test_a_failures_message_cannot_format_the_comment() -> None:
    failed = make_failed()
    assert failed.failure is not None
    hostile = failed.failure.model_copy(update={"message": "<img src=x> | **@team** [a](b)"})
    text = gate_markdown(judge(side(record()), side(make_failed(failure=hostile))))
    assert "&lt;img src=x&gt; \\| \\*\\*\\@team\\*\\* \\[a\\](b)" in text


def test_junit_tells_failures_errors_and_skipped_apart() -> None:
    elsewhere = ENVIRONMENT.model_copy(update={"processor": "another"})
    gone, failing = make_cell(pattern="2:4"), make_cell(pattern="4:8")
    verdict = judge(
        side(record(), record(cell=gone), record(cell=failing)),
        side(record(windows=(WORSE,), environment=elsewhere, metrics=costs()), make_failed(failing)),
    )
    suite = ElementTree.fromstring(junit_xml(verdict).encode())[0]
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "2", "errors": "1", "skipped": "2"}
    kinds = {
        case.get("name"): [child.tag for child in case]
        for case in suite
        if "0.5" in str(case.get("classname"))
    }
    assert kinds == {
        "perplexity wiki-sample-token-s2048": ["failure"],
        "sparsity target-modules": [],
        "prune_seconds": ["skipped"],
        "peak_host_bytes": ["skipped"],
    }


@pytest.mark.parametrize("text", ["\x00", "\ud800", "\ufffe", "\x1b[31m"])
def test_junit_is_xml_whatever_a_name_holds(text: str) -> None:
    cell = make_cell(settings={"initial": f"a{text}b"})
    try:
        verdict = judge(side(record(cell=cell)), side(record(cell=cell)))
    except UnicodeEncodeError:
        pytest.skip("such a cell has no digest, hence no record")
    ElementTree.fromstring(junit_xml(verdict).encode())
