"""Keeps `report.html` up to date during a run, from before the first cell until after the last."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from suite.api.report import render, write_report
from suite.executors.outcome import Outcome
from suite.results.records.index import record_files
from suite.storage.files import replace_text

SHARE = 0.05
"""Largest fraction of a run's time that is spent on rendering its report."""
FIRST_RENDER_S = 2.0
"""Expected duration of the first rendering, which also loads libraries, in seconds."""
LAST_RENDER_S = 5.0
"""A run that ends early renders its records once more only if that takes at most this many seconds."""
BEAT_S = 20.0
"""Seconds between the page's signs of life; `reports.page.run_status.PATIENCE_S` is several times that."""
_LOCK = ".report.lock"


class LiveReport:
    """Rewrites `report.html` of a results folder while a run adds records to it.

    Only one process writes the page: if several runs (e.g. shards) use one folder, the first one does, and
    the next one takes over when it is done. The records are rendered whenever a cell has ended, as long as
    rendering takes at most `SHARE` of the run; in between, only the lines at the top are updated. An error
    while writing the page never affects the run.

    Used as a context manager; a body that does not reach `finish` counts as ended early.

    Args:
        out: the results folder.
        title: the page's heading.
        n_kept: number of cells of the run that already had records.
        n_cells: number of all cells of the run.
        doing: returns what the run does at the moment, one line per running cell.
        warn: called with one line if the page cannot be written.
    """

    def __init__(
        self,
        out: Path,
        title: str,
        *,
        n_kept: int,
        n_cells: int,
        doing: Callable[[], Sequence[str]],
        warn: Callable[[str], None],
    ) -> None:
        self.path = out / "report.html"
        self._out, self._title = out, title
        self._n_kept, self._n_to_run = n_kept, n_cells - n_kept
        self._doing, self._warn = doing, warn
        self._outcome = Outcome((), (), ())
        self._handled = sys.exc_info()[1]  # the caller may be inside an `except` block
        self._lock = FileLock(out / _LOCK, timeout=0, thread_local=False)
        self._page: str | None = None
        self._warned = self._finished = False
        self._started = time.monotonic()
        self._spent, self._last = 0.0, FIRST_RENDER_S
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="live report", daemon=True)

    def __enter__(self) -> LiveReport:
        if self._n_to_run:
            self._quietly(self._begin)
            self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_beating()
        if self._n_to_run and not self._finished:
            if self._last <= LAST_RENDER_S:  # a slower rendering would delay the end of the run
                self._quietly(self._render)
            self._quietly(lambda: self._write(running=False))
        self._release()

    def cell_ended(self, outcome: Outcome) -> None:
        """Renders all records after one was written, if the time budget allows it.

        Args:
            outcome: how the cells of the run ended so far.
        """
        self._outcome = outcome
        n_run = len(outcome.finished) + len(outcome.failed)
        # After an error, storing what other workers have measured comes first; after the last cell, `finish`
        # renders the page anyway.
        if sys.exc_info()[1] is not self._handled or n_run == self._n_to_run:
            return
        expected = (time.monotonic() - self._started) / n_run * self._n_to_run
        if self._spent + self._last <= SHARE * expected:
            self._quietly(self._render)
        if self._spent <= SHARE * expected:
            self._quietly(self._write)

    def finish(self) -> bool:
        """Writes the final page; returns False if another run writes it, which shows these cells as well.

        Raises:
            InputError: the records cannot be read.
            OSError: the page cannot be written.
        """
        self._stop_beating()
        # A run that found the folder locked relies on this one to show its records. Two rounds are enough,
        # since a run that is still at work takes over the page.
        for _ in range(2):
            if not self._is_writer():
                break
            shown = _times(self._out)
            write_report([self._out], self.path, title=self._title)
            self._finished = True
            self._release()
            if _times(self._out) == shown:
                break
        return self._finished

    def _begin(self) -> None:
        """Writes the first page: the previous run's page, a rendering of its records, or a placeholder."""
        if self._n_kept and _with_status(self.path, "") is None:
            self._render()
        self._write()

    def _render(self) -> None:
        if not self._is_writer():
            return
        began = time.monotonic()
        try:
            page = render([self._out], title=self._title)
        finally:
            self._last = time.monotonic() - began
            self._spent += self._last
        with self._writing:
            self._page = page

    def _write(self, *, running: bool = True) -> None:
        """Writes the page as last rendered, with the current progress of the run at its top."""
        from reports.page.html import render_waiting
        from reports.page.run_status import run_status, with_status

        if not self._is_writer():
            return
        with self._writing:
            began = time.monotonic()
            status = run_status(
                n_done=self._n_kept + len(self._outcome.finished),
                n_failed=len(self._outcome.failed),
                n_cells=self._n_kept + self._n_to_run,
                doing=self._doing(),
                running=running,
            )
            page = None if self._page is None else with_status(self._page, status)
            page = page or _with_status(self.path, status)
            page = page or with_status(render_waiting(title=self._title), status)
            assert page is not None, "every page has a place for the status"
            self._page = page
            replace_text(self.path, page)
            self._spent += time.monotonic() - began

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            self._quietly(self._write)

    def _stop_beating(self) -> None:
        self._over.set()
        if self._heart.is_alive():
            self._heart.join()

    def _is_writer(self) -> bool:
        try:
            if not self._lock.is_locked:
                self._lock.acquire()
        except Timeout:
            return False
        except OSError:  # a file system without locks: the page is still replaced atomically
            return True
        return True

    def _release(self) -> None:
        """Lets another run write the page. Deletes the lock file first: two writers at once do no harm."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self._out / _LOCK).unlink()
        self._lock.release()

    def _quietly(self, work: Callable[[], None]) -> None:
        """Calls `work` and suppresses its errors; only the first one is reported, with `warn`."""
        try:
            work()
        except Exception as error:  # e.g. a full disk or a broken record: measuring goes on
            if not self._warned:
                self._warn(f"{self.path} is not up to date: {' '.join(str(error).split())}")
            self._warned = True


def _with_status(path: Path, status: str) -> str | None:
    """Returns the page in a file with a new status banner; None if there is no file or it is not a report."""
    from reports.page.run_status import with_status

    try:
        return with_status(path.read_text(encoding="utf-8"), status)
    except (OSError, UnicodeDecodeError):
        return None


def _times(out: Path) -> dict[Path, int]:
    """Returns the record files below a folder with their modification times in nanoseconds."""
    times = {}
    for path in record_files([out]):
        with suppress(FileNotFoundError):  # another run has just replaced it
            times[path] = path.stat().st_mtime_ns
    return times


__all__ = ["LiveReport"]
