"""`prunebench history`: what it prints, and what it says of wrong input."""

import io
import json
import subprocess
import sys

import pytest

from suite.commands.output.history import ASCII, UNICODE, WIDTH, signs_for, sparkline
from suite.results import ResultStore
from suite.results.records.record import Metric
from tests import PATIENCE_S
from tests.suite.conftest import refusal
from tests.suite.results.examples import CODE, ENVIRONMENT, make_cell, make_record


@pytest.fixture
def results(tmp_path):
    """Ten days of two methods; on the seventh, with another torch, wanda got worse."""
    for day in range(10):
        for method, value in (("wanda", 25.5 if day < 6 else 26.5), ("magnitude", 40.0)):
            record = make_record(
                make_cell(method=method),
                created=f"2026-02-{day + 1:02}T06:00:00Z",
                metrics=(
                    Metric(
                        name="perplexity",
                        protocol="wiki-sample-token-s2048",
                        value=value,
                        low=value - 1,
                        high=value + 1,
                        n=20,
                        direction="lower",
                    ),
                    Metric(name="sparsity", protocol="target-modules", value=0.5, direction="none"),
                ),
                code=CODE.model_copy(update={"git_commit": f"{day}" * 40, "git_clean": True}),
                environment=ENVIRONMENT.model_copy(
                    update={"packages": {"torch": "2.12.0" if day < 6 else "2.13.0"}}
                ),
            )
            ResultStore(tmp_path / "results" / f"2026-02-{day + 1:02}").write(record)
    return tmp_path / "results"


def test_a_line_a_series_and_beneath_it_its_changes(prunebench, results):
    code, out, err = prunebench("history", results)
    assert (code, err) == (0, "")
    heading, magnitude, wanda, change = out.splitlines()
    assert heading == "perplexity, lower is better; changes beyond 1.00% are marked"
    assert magnitude.split("  ")[0] == "org/model magnitude (output) 0.5"
    assert "10 points  40 → 40 " in magnitude
    assert "(last 39 to 41, n = 20) " in magnitude
    assert magnitude.endswith("  ▄▄▄▄▄▄▄▄▄▄")
    assert "wiki-sample-token-s2048" in wanda
    assert wanda.endswith("▁▁▁▁▁▁▇▇▇▇")
    assert change.strip() == (
        "2026-02-07 66666666: step 25.5 → 26.5 (+3.9%, worse), after 2026-02-06 55555555; "
        "the code that decides numbers is the same, torch 2.12.0 → 2.13.0"
    )


def test_json_has_every_point(prunebench, results):
    code, out, _ = prunebench("history", results, "--json", "--only", "wanda")
    (series,) = json.loads(out)
    assert code == 0
    assert series["protocol"] == "wiki-sample-token-s2048"
    (segment,) = series["segments"]
    assert [point["value"] for point in segment["points"]] == [25.5] * 6 + [26.5] * 4
    (change,) = segment["changes"]
    assert change["first_after"]["commit"] == "66666666"
    assert change["better"] is False
    assert change["relative"] == pytest.approx(1 / 25.5)


def test_several_folders_a_tolerance_and_commits(prunebench, results):
    folders = sorted(results.iterdir())
    _, whole, _ = prunebench("history", results, "--by", "commit", "--tolerance", "0.05")
    _, parts, _ = prunebench("history", *folders, "--by", "commit", "--tolerance", "0.05")
    assert whole == parts
    assert "changes beyond 5.00%" in whole
    assert "step" not in whole


def test_unreadable_records_are_named_and_the_others_shown(prunebench, results):
    broken = next((results / "2026-02-03").rglob("wanda--*.json"))
    broken.write_text("{")
    code, out, err = prunebench("history", results)
    assert code == 0
    assert "9 points" in out
    (line,) = err.splitlines()
    assert line.startswith(f"cannot be read: {broken}: is cut short")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such folder of records"),
        ((".",), "no finished records"),
        (("results", "--metric", "perplexty"), "did you mean 'perplexity'?"),
        (("results", "--protocol", "wiki"), "no record has perplexity with protocol 'wiki'"),
        (("results", "--only", "sparsegpt"), "--only sparsegpt: matches none of 2 cells"),
        (("results", "--by", "week"), "'week' is not one of"),
    ],
)
def test_wrong_input_gets_one_line(prunebench, results, tmp_path, arguments, message):
    if arguments == (".",):
        empty = tmp_path / "empty"
        empty.mkdir()
        arguments = (empty,)
    assert message in refusal(prunebench("history", *arguments))


def test_ascii_where_the_output_cannot_show_more(prunebench, results, monkeypatch):
    _, out, _ = prunebench("history", results, "--ascii")
    assert out.isascii()
    assert "______####" in out
    assert "25.5 -> 26.5" in out
    latin = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", latin)
    assert signs_for(sys.stdout.encoding) is ASCII
    assert signs_for("utf-8") is UNICODE
    assert signs_for(None) is ASCII


def test_a_sparkline_shows_what_matters():
    assert sparkline([1.0, 2.0, 3.0], 0.01) == "▁▄▇"
    assert len(set(sparkline([25.50, 25.51, 25.49], 0.01))) == 1, "noise within the tolerance"
    assert sparkline([0.0, 0.0], 0.01) == "▄▄"
    assert sparkline([], 0.01) == ""
    assert len(sparkline([float(i) for i in range(1000)], 0.01)) == WIDTH
    assert sparkline([-1.7e308, 1.7e308], 0.01) == "▁▇"


def test_a_history_needs_no_torch():
    probe = (
        "import sys, suite.results.history.series, suite.commands.output.history; "
        "print(*(name for name in ('torch', 'pandas', 'scipy', 'ruptures') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
