"""Who else is told of a run's records: experiment trackers, none by default, and none that harms a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from methods.registry import Registry

Ending = Literal["finished", "failed", "interrupted"]
"""All cells have numbers; some have none; the run did not come to its end."""


@dataclass(frozen=True)
class SuiteRun:
    """The run that is tracked.

    Attributes:
        suite: name of the suite.
        out: its results folder.
        n_cells: in its plan, those whose record stands already too.
    """

    suite: str
    out: Path
    n_cells: int


class Tracker(Protocol):
    """Logs a run somewhere. What it raises costs the tracking, never the run (`Tracking`)."""

    def run_started(self, run: SuiteRun) -> None:
        """Comes first."""

    def record_written(self, path: Path) -> None:
        """A record stands on the disk, just written or kept from an earlier run.

        The same record may come in every run of a suite, and is logged once.
        """

    def run_ended(self, ending: Ending, report: Path | None) -> None:
        """Comes last; `report` is None where none was written."""


trackers: Registry[Tracker] = Registry(
    "tracker", "prunebench.trackers", {"mlflow": "suite.tracking.mlflow:MLflowTracker"}
)
"""Trackers by name."""


class Tracking:
    """The time a run is tracked: passes on what happens until the tracker fails for the first time.

    A context manager; a body that does not reach `finished` counts as interrupted.

    Args:
        name: of the tracker, for the warning.
        tracker: who is told; None = nobody.
        run: the run.
        warn: gets the one line about a tracker that failed.
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
        """A record stands on the disk."""
        self._tell(lambda tracker: tracker.record_written(path))

    def finished(self, report: Path | None, *, failed: bool) -> None:
        """The run came to its end.

        Args:
            report: its report; None where another run is still writing it.
            failed: whether a cell has no numbers.
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
        # Whatever a tracker, its server or its disk throws: records are worth more than their tracking.
        except Exception as error:
            self._tracker = None
            reason = _without_passwords(" ".join(f"{type(error).__name__}: {error}".split()))
            if len(reason) > 300:
                reason = f"{reason[:300]}..."
            self._warn(f"tracking with {self._name} is off for the rest of this run: {reason}")


def _without_passwords(text: str) -> str:
    """`text` with what stands before the @ of an address taken out."""
    return re.sub(r"//[^/@\s]+@", "//***@", text)


def open_tracker(name: str) -> Tracker:
    """The tracker of that name, not connected yet.

    Raises:
        InputError: there is none (the message has the nearest names), or what it needs is not installed.
    """
    return trackers.class_of(name)()


__all__ = ["Ending", "SuiteRun", "Tracker", "Tracking", "open_tracker", "trackers"]
