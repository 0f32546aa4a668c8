"""The worked examples of CONTRIBUTING.md, applied to a copy of the code as a contributor would."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from suite.results.records.record import SCHEMA_VERSION
from tests import PATIENCE_S
from tests.e2e.test_adding_a_method import files_of
from tests.tiny import save_tiny_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def example(heading: str) -> str:
    """The part of the page under a heading."""
    return PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages with one example of the page applied; gives what a script prints there."""

    def run(heading: str, script: str) -> str:
        for package in ("methods", "suite", "reports", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
        (patch,) = re.findall(r"^```diff\n(.*?)^```$", example(heading), re.MULTILINE | re.DOTALL)
        applied = subprocess.run(
            ["git", "apply", "-"],
            cwd=tmp_path,
            input=patch,
            capture_output=True,
            text=True,
        )
        assert applied.returncode == 0, applied.stderr
        ran = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


def test_a_metric_is_measured_verified_judged_and_shown(copy):
    script = """
from reports import render_report
from suite.results.records.record import SCHEMA_VERSION
from suite.results.gate.tolerances import load_tolerances
from suite.results.statistics.pairing import pair_items
from suite.results.verification.arithmetic import check_answers
from suite.results.verification.checked_record import Subject
from tests.reports.page_tables import PageTables
from tests.reports.synthetic_measured import measured_record
import suite
from pathlib import Path

assert Path(suite.__file__).parent.parent == Path.cwd(), "the copy is what runs"
dense, pruned = measured_record("dense"), measured_record("wanda")
print(SCHEMA_VERSION, pruned.metric("answers_empty").value, pruned.metric("answers_empty").direction)
nothing = lambda protocol, name: None
paired = pair_items(dense, pruned, first_items=nothing, second_items=nothing)
print([items.kind for items in paired if items.name == "answers_empty"])
wrong = pruned.metric("answers_empty").model_copy(update={"value": 0.5})
kept = [metric for metric in pruned.metrics if metric.name != wrong.name]
for metrics in (pruned.metrics, (*kept, wrong), kept):
    changed = pruned.model_copy(update={"metrics": tuple(metrics)}).sealed()
    found = list(check_answers(Subject(Path("it.json"), changed)))
    print(len([finding for finding in found if "answers_empty" in str(finding)]))
print(load_tolerances().of("answers_empty", "any").absolute)
tables = PageTables(render_report([dense, pruned], title="It")).found
[headings] = [rows[0] for caption, rows in tables.items() if ": Answers, " in caption]
print([heading.split("|")[0] for heading in headings if heading.startswith("Empty")])
"""
    measured, paired, right, wrong, missing, tolerance, shown = copy("A metric", script).splitlines()
    assert (measured, paired, shown) == (f"{SCHEMA_VERSION + 1} 0.0 lower", "['question']", "['Empty ↓']")
    assert (right, wrong, missing) == ("0", "1", "1")
    assert tolerance == "0.05"


def test_a_chapter_is_on_the_page(copy):
    script = """
from reports import render_report
from tests.reports.page_tables import PageTables
from tests.reports.synthetic import make_record

warned = make_record("wanda", warnings=("the first", "the second"))
page = render_report([make_record("dense"), warned, make_record("sparsegpt")], title="It")
assert '<h3 id="setting-1-warned">Warnings</h3>' in page
print(PageTables(page).rows("Warnings, warnings"))
"""
    [row] = eval(copy("A report chapter", script))
    assert row[0] == "wanda" and row[2:] == ["2", "the first"]


def test_a_task_is_asked(tmp_path):
    files = files_of(example("A task"))
    assert files.keys() == {"capitals.yaml", "capitals.jsonl"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    model = save_tiny_model(tmp_path / "model")
    asked = (
        "--task",
        "capitals",
        "--task-folder",
        ".",
        "--prompts",
        "none",
        "--no-speed",
        "--dtype",
        "float32",
    )
    text = ("--perplexity", "wiki-sample", "--seqlen", 32, "--max-tokens", 64)
    program = "from suite.cli import program; program()"
    command = [sys.executable, "-c", program, "evaluate", model, *asked, *text]
    ran = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ran.returncode == 0, ran.stderr
    assert "capitals-0shot" in ran.stdout
