"""The pytest plugin: `assert_no_regression` and `run_suite` for tests in a method's own repository.

pytest imports this module wherever prunebench is installed, so what is heavy is imported where it is used.
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
    """The baselines that this run of pytest replaced: by folder, what became of each."""

    done: dict[Path, str] = field(default_factory=dict)


_UPDATES = pytest.StashKey[_Updates]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--update-baselines`."""
    parser.getgroup("prunebench").addoption(
        OPTION,
        action="store_true",
        dest="update_baselines",
        help="make the candidates of assert_no_regression the new baselines, whatever the outcome",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses to replace baselines from several processes, which know nothing of each other."""
    config.stash[_UPDATES] = _Updates()
    if config.getoption("update_baselines") and config.getoption("dist", "no") != "no":
        raise pytest.UsageError(f"{OPTION} replaces baselines one after another: give it without -n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Lists the baselines that were replaced."""
    if updates := config.stash[_UPDATES].done:
        terminalreporter.section("prunebench: baselines updated")
        for folder, outcome in updates.items():
            terminalreporter.write_line(f"{folder}: {outcome}")


@dataclass(frozen=True)
class AssertNoRegression:
    """What the fixture `assert_no_regression` gives."""

    _config: pytest.Config

    def __call__(
        self,
        candidate: str | Path | Record | Sequence[Record],
        baseline: str | Path,
        *,
        tolerances: str | Path | None = None,
        across: Sequence[str] = (),
    ) -> None:
        """Holds a candidate against its baseline, by the rules of `prunebench gate`.

        With `--update-baselines` the candidate takes the baseline's place instead, whatever the outcome.

        Args:
            candidate: a folder of records, the file of one, or records (`suite.run_suite` returns them).
            baseline: a folder of records, or the file of one.
            tolerances: a TOML file with tolerances in place of the built-in ones.
            across: keys of cells in which the two sides may differ, e.g. `calibration.seed`.

        Raises:
            AssertionError: a regression; the message has the gate's lines.
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
"""The results tree of a suite that ran, or why its test fails."""


@dataclass(frozen=True)
class RunSuite:
    """What the fixture `run_suite` gives."""

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
        """Runs a suite as `prunebench run` does, in a process of its own; once in a run of pytest.

        Args:
            suite: a suite file, or the name of a built-in suite.
            out: the folder of records; a temporary one by default.
            existing: what becomes of records that `out` has. They are made anew by default: of the code of
                other packages, only a raised `version` of the method tells that it was changed. `skip`
                resumes a run that was interrupted.
            device: as the command's.

        Returns:
            The folder of records, with the report in it.

        Raises:
            pytest.fail.Exception: the suite is wrong, or a cell failed.
        """
        __tracebackhide__ = True
        # A built-in suite's name must reach the command as it is, and a file's by any way to it be the same.
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
    """Call it with a candidate and its baseline: fails if the candidate is worse (docs/ci.md)."""
    return AssertNoRegression(pytestconfig)


@pytest.fixture(scope="session")
def run_suite(tmp_path_factory: pytest.TempPathFactory) -> RunSuite:
    """Call it with a suite: runs it once and gives the folder of its records (docs/ci.md)."""
    return RunSuite(tmp_path_factory)


def _run(suite: str, folder: Path, existing: str, device: str) -> _Ran:
    # In a process of its own a suite costs what it costs on the command line: peaks of memory compare.
    # -P keeps a folder called `suite` in the user's repository from being taken for this package.
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
    """The side of a candidate; records that come without a file get one in `stored`."""
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

    held_against = _tolerances(tolerances)
    try:
        expected = read_side(baseline, "baseline")
    except InputError as error:
        raise InputError(f"{error}; pytest {OPTION} makes the candidate the baseline") from error
    return judge(expected, candidate, held_against, across)


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
