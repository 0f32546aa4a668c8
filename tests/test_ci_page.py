"""docs/ci.md shows what the templates beside it are, and what the plugin takes."""

import ast
import inspect
import re
from pathlib import Path

import yaml

from suite.pytest_plugin import AssertNoRegression, RunSuite

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "ci.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def statements(text: str) -> list[str]:
    """The code without what is said about it."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return [ast.unparse(node) for node in tree.body]


def test_the_test_it_shows_is_the_ready_made_one():
    (shown,) = blocks("python")
    assert statements(shown) == statements((DOCS / "ci" / "test_regression.py").read_text())


def test_the_signatures_it_shows_are_those_of_the_fixtures():
    for function, call in ((RunSuite, "run_suite"), (AssertNoRegression, "assert_no_regression")):
        shown = re.search(rf"`{call}\(([^`.]*)\)`", PAGE)
        assert shown is not None
        parameters = list(inspect.signature(function.__call__).parameters.values())[1:]
        expected = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
        assert shown[1].replace('"', "'") == ", ".join(expected)


def test_the_pipeline_it_shows_runs_the_script_with_a_suite_and_two_folders():
    (shown,) = blocks("yaml")
    job = yaml.safe_load(shown)["prunebench"]
    command, script, suite, baseline, candidate = job["script"][-1].split()
    assert (command, script, suite) == ("bash", "ci/gate.sh", "regression")
    assert baseline != candidate
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] == f"{candidate}/gate.xml"
