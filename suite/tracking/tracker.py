"""Optional experiment trackers that log a run's records. A failing tracker never harms the run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from methods.registry import Registry

Ending = Literal["finished", "failed", "interrupted"]
"""`finished`: all cells have numbers; `failed`: some have none; `interrupted`: the run stopped early."""


@dataclass(frozen=True)
class SuiteRun:
    """The run that is tracked.

    Attributes:
        suite: name of the suite.
        out: the results folder of the run.
        n_cells: number of cells in the plan, including those that already have a record.
    """

    suite: str
    out: Path
    n_cells: int


class Tracker(Protocol):
    """Logs a run to an external service. If it raises, tracking stops, but the run goes on (`Tracking`)."""

    def run_started(self, run: SuiteRun) -> None:
        """Called first, when the run starts."""

    def record_written(self, path: Path) -> None:
        """Called for each record on the disk, whether just written or kept from an earlier run.

        Every run of a suite may pass the same record; it must be logged only once.
        """

    def run_ended(self, ending: Ending, report: Path | None) -> None:
        """Called last; `report` is None if no report was written."""


trackers: Registry[Tracker] = Registry(
    "tracker", "prunebench.trackers", {"mlflow": "suite.tracking.mlflow:MLflowTracker"}
)
"""Trackers by name."""


class Tracking:
    """Passes the events of a run to a tracker, until the tracker fails for the first time.

    Use it as a context manager; if the body ends without a call of `finished`, the run counts as interrupted.

    Args:
        name: name of the tracker, for the warning.
        tracker: the tracker; None = no tracking.
        run: the run.
        warn: receives one line if the tracker fails.
    """

    def __init__(
        self, name: str | None, tracker: Tracker | None, run: SuiteRun, warn: Callable[[str], None]
    ) -> None:
        self._name = name
        self._tracker = tracker
        self._run = run
        self._warn = warn
        self._ended = False

    def __enter__(self) -> Tracking:
        self._tell(lambda tracker: tracker.run_started(self._run))
        return self

    def record_written(self, path: Path) -> None:
        """Passes a record on the disk to the tracker."""
        self._tell(lambda tracker: tracker.record_written(path))

    def finished(self, report: Path | None, *, failed: bool) -> None:
        """Tells the tracker that the run ended normally.

        Args:
            report: the report; None if another run is still writing it.
            failed: whether any cell has no numbers.
        """
        self._ended = True
        self._tell(lambda tracker: tracker.run_ended("failed" if failed else "finished", report))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._ended:
            self._tell(lambda tracker: tracker.run_ended("interrupted", None))

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        # Catches every error of the tracker, its server or its disk: the run matters more than its tracking.
        except Exception as error:
            self._tracker = None
            reason = _without_passwords(" ".join(f"{type(error).__name__}: {error}".split()))
            if len(reason) > 300:
                reason = f"{reason[:300]}..."
            self._warn(f"tracking with {self._name} is off for the rest of this run: {reason}")


def _without_passwords(text: str) -> str:
    """Replaces the user name and password in the addresses of `text` with `***`."""
    return re.sub(r"//[^/@\s]+@", "//***@", text)


def open_tracker(name: str) -> Tracker:
    """Returns the tracker of that name, not yet connected.

    Raises:
        InputError: there is no such tracker (the message suggests similar names), or its package is missing.
    """
    return trackers.class_of(name)()


__all__ = ["Ending", "SuiteRun", "Tracker", "Tracking", "open_tracker", "trackers"]
