"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from suite.results import ResultStore
from suite.results.records.items import WindowLosses
from suite.results.records.record import ModelIdentity, Record
from tests.methods.test_light_imports import HEAVY
from tests.suite.results.examples import make_cell, make_failed, make_record
from tests.tiny import write_suite

pytest_plugins = ["pytester"]

TEXT = "wiki-sample-token-s512"
MODEL = ModelIdentity(
    name="m", revision=None, architecture="A", n_parameters=1, weight_digest="d" * 64, dtype="float32"
)

ONE_TEST = """
def test_mine(assert_no_regression):
    assert_no_regression("candidate", "baseline")
"""


def record(worse_by: float = 0.0, **changes: Any) -> Record:
    nll = tuple(3.0 + 0.01 * (n % 5) + worse_by for n in range(30))
    losses = WindowLosses(
        protocol=TEXT, corpus_digest="c", corpus_revision="1", seqlen=512, limit=None, nll=nll
    )
    return make_record(**{"model": MODEL, "windows": (losses,), "metrics": (), **changes})


def write(folder: str, *records: Record) -> Path:
    for one in records:
        ResultStore(Path(folder)).write(one)
    return Path(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/*")}


@pytest.fixture
def inner(pytester: pytest.Pytester):
    """Runs a pytest of its own in an empty folder, on this test."""

    def run(test: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    return run


def test_the_same_is_no_regression(inner) -> None:
    write("baseline", record())
    write("candidate", record())
    inner(ONE_TEST).assert_outcomes(passed=1)


def test_a_regression_fails_with_the_lines_of_the_gate(inner) -> None:
    write("baseline", record())
    write("candidate", record(0.05))
    done = inner(ONE_TEST)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*assert_no_regression(*",
            "E*AssertionError: worse*wanda (output) 0.5",
            f"E*worse*perplexity {TEXT}*→*+5.13 %*p < 0.001*tolerance 1 %*",
            "E*a regression was found: 1 worse in 1 cell",
        ]
    )
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_what_cannot_be_compared_is_no_assertion(inner) -> None:
    other = MODEL.model_copy(update={"weight_digest": "e" * 64})
    write("baseline", record())
    write("candidate", record(model=other))
    done = inner(
        """
        import pytest

        def test_it_fails(assert_no_regression):
            assert_no_regression("candidate", "baseline")

        def test_it_is_told_apart(assert_no_regression):
            try:
                assert_no_regression("candidate", "baseline")
            except AssertionError:
                raise SystemError("taken for a regression")
            except pytest.fail.Exception as failure:
                assert str(failure).startswith("could not be compared:")
        """
    )
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["could not be compared:", "not comparable*another dense model*"])


def test_without_a_baseline_it_fails_and_says_how_to_make_one(inner) -> None:
    write("candidate", record())
    done = inner(ONE_TEST)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["baseline baseline: no such folder*; pytest --update-baselines makes the candidate the baseline"]
    )
    assert not Path("baseline").exists()


def test_an_update_makes_the_baseline_and_says_so(inner) -> None:
    candidate = write("candidate", record())
    done = inner(ONE_TEST, "--update-baselines")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*prunebench: baselines updated*", "*baseline: 1 records written*"])
    assert contents(Path("baseline")) == contents(candidate)
    inner(ONE_TEST).assert_outcomes(passed=1)


def test_an_update_accepts_a_regression_and_names_it(inner) -> None:
    write("baseline", record(), record(cell=make_cell(method="magnitude", calibration=None)))
    candidate = write("candidate", record(0.05))
    done = inner(ONE_TEST, "--update-baselines")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(
        ["*1 records written, 1 of other cells removed; before: a regression was found: 1 worse*"]
    )
    assert contents(Path("baseline")) == contents(candidate)


def test_an_update_with_a_failed_cell_fails_and_leaves_the_baseline(inner) -> None:
    baseline = write("baseline", record())
    before = contents(baseline)
    write("candidate", make_failed())
    done = inner(ONE_TEST, "--update-baselines")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*failed: a baseline needs numbers of every cell"])
    assert contents(baseline) == before


def test_two_tests_cannot_overwrite_each_others_baseline(inner) -> None:
    write("candidate", record())
    done = inner(ONE_TEST + ONE_TEST.replace("test_mine", "test_other"), "--update-baselines")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        ["baseline baseline: another test has just replaced it; give each test its own*"]
    )


def test_several_processes_cannot_update(inner) -> None:
    write("candidate", record())
    done = inner(ONE_TEST, "--update-baselines", "-n", "2")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--update-baselines*use it without -n"])
    assert not Path("baseline").exists()


def test_records_need_no_files(inner) -> None:
    write("candidate", record())
    of_records = """
        from pathlib import Path
        from suite.results import load_record

        RECORD = load_record(next(Path("candidate").glob("*/*.json"))).model_copy(update={"body_digest": ""})

        def test_one(assert_no_regression):
            assert_no_regression(RECORD, "one")

        def test_several(assert_no_regression):
            assert_no_regression([RECORD], Path("several"))
        """
    inner(of_records).assert_outcomes(failed=2)
    inner(of_records, "--update-baselines").assert_outcomes(passed=2)
    inner(of_records).assert_outcomes(passed=2)
    write("one", record(-0.05))
    done = inner(of_records)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["E*a regression was found: 1 worse in 1 cell"])


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("'nowhere', 'baseline'", "candidate nowhere: no such folder of records"),
        ("'candidate', 'baseline', tolerances='no.toml'", "tolerances no.toml cannot be read: *"),
        ("'candidate', 'baseline', across=['sede']", "--across sede: cells have no such key*"),
        ("[], 'baseline'", "candidate: no records were given"),
    ],
)
def test_a_wrong_input_is_one_line(inner, call: str, line: str) -> None:
    write("baseline", record())
    write("candidate", record())
    done = inner(f"def test_mine(assert_no_regression):\n    assert_no_regression({call})\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([line])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_tolerances_and_keys_to_compare_across_reach_the_gate(inner) -> None:
    write("baseline", record())
    write("candidate", record(0.05, cell=make_cell(pattern="0.6")))
    Path("wide.toml").write_text("[perplexity]\nrelative = 0.1\n")
    done = inner(
        """
        def test_narrow(assert_no_regression):
            assert_no_regression("candidate", "baseline", across=["pattern"])

        def test_wide(assert_no_regression):
            assert_no_regression("candidate", "baseline", across=["pattern"], tolerances="wide.toml")
        """
    )
    done.assert_outcomes(passed=1, failed=1)


def test_a_suite_runs_once_into_the_folder_that_is_asked_for(inner) -> None:
    suite = write_suite(Path.cwd(), "magnitude", patterns=["0.5"])
    Path("bad.toml").write_text(suite.read_text().replace('"magnitude"', '"magnitud"'))
    done = inner(
        """
        import os

        def test_one(run_suite):
            records = run_suite("tiny.toml", out="mine")
            assert records.samefile("mine")
            assert len(list(records.glob("*/*.json"))) == 2
            assert (records / "report.html").exists()
            os.remove("text.txt")

        def test_it_does_not_run_again(run_suite):
            assert run_suite(os.path.abspath("tiny.toml"), out="mine").samefile("mine")

        def test_wrong(run_suite):
            run_suite("bad.toml")
        """
    )
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*bad.toml: *bad.toml:*magnitud*did you mean 'magnitude'*"])


def test_pytest_starts_without_anything_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    probe = (
        "import sys, pytest\n"
        "pytest.main(['-q', '-p', 'no:cacheprovider', 'test_nothing.py'])\n"
        "assert 'suite.pytest_plugin' in sys.modules\n"
        f"print('heavy:', *(name for name in {[*HEAVY, 'pydantic', 'numpy']!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"
