"""The pytest plugin: fixtures `assert_no_regression` and `run_suite` for the repositories of methods.

pytest imports this module wherever prunebench is installed, so heavy modules are imported only when used.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest

from methods.errors import InputError

if TYPE_CHECKING:
    from suite.results.gate import Side, Tolerances, Verdict
    from suite.results.records.record import Record

OPTION = "--update-baselines"


@dataclass
class _Updates:
    """The baselines that this run of pytest replaced: maps each folder to a description of the update."""

    done: dict[Path, str] = field(default_factory=dict)


_UPDATES = pytest.StashKey[_Updates]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option `--update-baselines`."""
    parser.getgroup("prunebench").addoption(
        OPTION,
        action="store_true",
        dest="update_baselines",
        help="replace the baselines of assert_no_regression with the candidates, whatever the outcome",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses `--update-baselines` with pytest-xdist, whose processes do not know each other's updates."""
    config.stash[_UPDATES] = _Updates()
    if config.getoption("update_baselines") and config.getoption("dist", "no") != "no":
        raise pytest.UsageError(f"{OPTION} replaces baselines one after another: use it without -n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Lists the baselines that were replaced."""
    if updates := config.stash[_UPDATES].done:
        terminalreporter.section("prunebench: baselines updated")
        for folder, outcome in updates.items():
            terminalreporter.write_line(f"{folder}: {outcome}")


@dataclass(frozen=True)
class AssertNoRegression:
    """The callable that the fixture `assert_no_regression` returns."""

    _config: pytest.Config

    def __call__(
        self,
        candidate: str | Path | Record | Sequence[Record],
        baseline: str | Path,
        *,
        tolerances: str | Path | None = None,
        across: Sequence[str] = (),
    ) -> None:
        """Compares a candidate with its baseline by the rules of `prunebench gate`.

        With `--update-baselines` the candidate replaces the baseline instead, whatever the outcome.

        Args:
            candidate: a folder of records, the file of a record, or records (as `suite.run_suite` returns).
            baseline: a folder of records, or the file of a record.
            tolerances: a TOML file with tolerances that replace the built-in ones.
            across: keys of cells in which the two sides may differ, e.g. `calibration.seed`.

        Raises:
            AssertionError: there is a regression; the message has the lines of the gate.
            pytest.fail.Exception: nothing got worse, but not everything could be compared, or the input is
                wrong: there is no baseline yet, a record cannot be read, no cell is on both sides...
        """
        __tracebackhide__ = True
        with TemporaryDirectory() as stored:
            try:
                judged = _candidate(candidate, Path(stored))
                if self._config.getoption("update_baselines"):
                    self._update(judged, Path(baseline), tolerances, across)
                    return
                verdict = _verdict(judged, Path(baseline), tolerances, across)
            except InputError as error:
                _fail(str(error))
        lines = "\n".join(_lines(verdict))
        if verdict.exit_code == 1:
            raise AssertionError(lines)
        if verdict.exit_code:
            _fail(f"could not be compared:\n{lines}")

    def _update(
        self, candidate: Side, baseline: Path, tolerances: str | Path | None, across: Sequence[str]
    ) -> None:
        from suite.results.gate.baseline import update_baseline
        from suite.results.gate.wording import summary

        updates = self._config.stash[_UPDATES].done
        folder = baseline.resolve()
        if folder in updates:
            raise InputError(
                f"baseline {baseline}: another test has just replaced it; give each test its own baseline"
            )
        try:
            was = summary(_verdict(candidate, baseline, tolerances, across))
        except InputError as error:
            was = str(error)
        done = update_baseline(baseline, candidate)
        removed = f", {len(done.removed)} of other cells removed" if done.removed else ""
        updates[folder] = f"{len(done.written)} records written{removed}; before: {was}"


_Ran = Path | str
"""The results tree of a suite that ran, or the message with which its test fails."""


@dataclass(frozen=True)
class RunSuite:
    """The callable that the fixture `run_suite` returns."""

    _folders: pytest.TempPathFactory
    _ran: dict[tuple[str, Path | None, str], _Ran] = field(default_factory=dict)

    def __call__(
        self,
        suite: str | Path,
        *,
        out: str | Path | None = None,
        existing: Literal["rerun", "rerun-stale", "skip"] = "rerun",
        device: str = "auto",
    ) -> Path:
        """Runs a suite as `prunebench run` does, in a separate process, once per run of pytest.

        Args:
            suite: a suite file, or the name of a built-in suite.
            out: the folder of records; a temporary one by default.
            existing: how to treat records that exist in `out`. By default all cells are rerun, as a change in
                the code of another package is only detected if the `version` of its method was raised.
                `skip` resumes an interrupted run.
            device: as for the option `--device` of `prunebench run`.

        Returns:
            The folder with the records and the report.

        Raises:
            pytest.fail.Exception: the suite is wrong, or a cell failed.
        """
        __tracebackhide__ = True
        # The name of a built-in suite is passed on unchanged; different paths to one file are made equal.
        name = str(Path(suite).resolve()) if Path(suite).suffix == ".toml" else str(suite)
        key = (name, None if out is None else Path(out).resolve(), device)
        if key not in self._ran:
            folder = key[1] or self._folders.mktemp("prunebench-suite")
            self._ran[key] = _run(name, folder, existing, device)
        outcome = self._ran[key]
        if isinstance(outcome, str):
            _fail(outcome)
        return outcome


@pytest.fixture(scope="session")
def assert_no_regression(pytestconfig: pytest.Config) -> AssertNoRegression:
    """Call it with a candidate and its baseline: fails the test if the candidate is worse (docs/ci.md)."""
    return AssertNoRegression(pytestconfig)


@pytest.fixture(scope="session")
def run_suite(tmp_path_factory: pytest.TempPathFactory) -> RunSuite:
    """Call it with a suite: runs it once and returns the folder of its records (docs/ci.md)."""
    return RunSuite(tmp_path_factory)


def _run(suite: str, folder: Path, existing: str, device: str) -> _Ran:
    # A separate process makes costs, such as peak memory, comparable with those of the command line.
    # -P prevents a folder called `suite` in the user's repository from being imported as this package.
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "suite.cli", "run", suite, "--out", str(folder)),
            *("--existing", existing, "--device", device, "--json"),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    sys.stderr.write(done.stderr)  # pytest shows it with a failure
    if done.returncode == 0:
        return folder
    if done.stdout:
        failed = json.loads(done.stdout)["failed"]
        cells = "\n".join(f"    {cell['cell']}: {cell['reason']}" for cell in failed)
        return f"{suite}: {len(failed)} cell{'s' if len(failed) != 1 else ''} failed:\n{cells}"
    last = next(reversed(done.stderr.strip().splitlines()), f"ended with exit code {done.returncode}")
    return f"{suite}: {last.removeprefix('prunebench: ')}"


def _candidate(candidate: str | Path | Record | Sequence[Record], stored: Path) -> Side:
    """Returns the candidate's side; records that are passed as objects are first written to `stored`."""
    from suite.results.gate import read_side
    from suite.results.records.record import Record
    from suite.results.records.store import ResultStore

    if isinstance(candidate, str | Path):
        return read_side(Path(candidate), "candidate")
    records = [candidate] if isinstance(candidate, Record) else list(candidate)
    if not records:
        raise InputError("candidate: no records were given")
    if len({record.cell.digest for record in records}) < len(records):
        raise InputError("candidate: a cell has two records")
    for record in records:
        ResultStore(stored).write(record)
    return replace(read_side(stored, "candidate"), name="the test's records")


def _verdict(
    candidate: Side, baseline: Path, tolerances: str | Path | None, across: Sequence[str]
) -> Verdict:
    from suite.results.gate import judge, read_side

    limits = _tolerances(tolerances)
    try:
        expected = read_side(baseline, "baseline")
    except InputError as error:
        raise InputError(f"{error}; pytest {OPTION} makes the candidate the baseline") from error
    return judge(expected, candidate, limits, across)


def _tolerances(path: str | Path | None) -> Tolerances:
    from suite.results.gate import load_tolerances

    return load_tolerances(None if path is None else Path(path))


def _lines(verdict: Verdict) -> Sequence[str]:
    from suite.commands.output.gate import as_lines

    return list(as_lines(verdict))


def _fail(message: str) -> NoReturn:
    __tracebackhide__ = True
    pytest.fail(message, pytrace=False)


__all__ = ["OPTION", "AssertNoRegression", "RunSuite", "assert_no_regression", "run_suite"]
