"""The report of a run while it lasts: there before the first cell, and true to what became of the run."""

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
"""Of a run's time that rendering its report may take."""
FIRST_RENDER_S = 2.0
"""What the first one is expected to take: libraries are loaded for it."""
LAST_RENDER_S = 5.0
"""A run that ends early renders once more what it has, if that takes no longer."""
BEAT_S = 20.0
"""So often a page says that its run is alive; `reports.page.run_status.PATIENCE_S` is several times that."""
_LOCK = ".report.lock"


class LiveReport:
    """Writes `report.html` of a results folder anew while a run fills it.

    One process writes it: where several runs (shards, say) fill one folder, the first to come does, and when
    it is done the next one. When a cell has ended the records are rendered, if that takes at most `SHARE` of
    the run; meanwhile only the lines at the top are brought up to date. No trouble with the page costs the
    run anything but the page.

    A context manager; a body that does not reach `finish` counts as ended early.

    Args:
        out: the results folder.
        title: the page's heading.
        n_kept: cells of the run whose records stood before.
        n_cells: all cells of the run.
        doing: gives what the run does at the moment, a line for each cell that runs.
        warn: gets the one line about a page that cannot be written.
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
        self._handled = sys.exc_info()[1]  # whoever runs a suite may be handling an error
        self._lock = FileLock(out / _LOCK, timeout=0, thread_local=False)
        self._page: str | None = None
        self._told = self._finished = False
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
            if self._last <= LAST_RENDER_S:  # else whoever waits for the end would wait for the page
                self._quietly(self._render)
            self._quietly(lambda: self._write(running=False))
        self._release()

    def cell_ended(self, outcome: Outcome) -> None:
        """A record was written: renders all of them, if there is time for it.

        Args:
            outcome: how the cells of the run ended so far.
        """
        self._outcome = outcome
        n_run = len(outcome.finished) + len(outcome.failed)
        # What other workers have measured is stored before anything else, and the last page comes soon.
        if sys.exc_info()[1] is not self._handled or n_run == self._n_to_run:
            return
        expected = (time.monotonic() - self._started) / n_run * self._n_to_run
        if self._spent + self._last <= SHARE * expected:
            self._quietly(self._render)
        if self._spent <= SHARE * expected:
            self._quietly(self._write)

    def finish(self) -> bool:
        """Writes the page as it stays; False where another run writes it, and shows these cells there.

        Raises:
            InputError: the records cannot be read.
            OSError: the page cannot be written.
        """
        self._stop_beating()
        # Whoever found the folder locked meanwhile relies on this run to show what it wrote: once more is
        # enough, since a run that is still at work takes the page over by itself.
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
        """The first page: that of the run before, or what its records make, or one that waits for some."""
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
        """The page as it was rendered last, with how far the run is now."""
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
            assert page is not None, "every page has room for it"
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
        except OSError:  # a file system without locks: the page is replaced in one step all the same
            return True
        return True

    def _release(self) -> None:
        """Lets another run write the page. Its file goes first: two writers for a moment do no harm."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self._out / _LOCK).unlink()
        self._lock.release()

    def _quietly(self, work: Callable[[], None]) -> None:
        """Does it; says the first time what went wrong with it, and goes on without."""
        try:
            work()
        except Exception as error:  # a full disk, a record that is no record: measuring is worth more
            if not self._told:
                self._warn(f"{self.path} is not up to date: {' '.join(str(error).split())}")
            self._told = True


def _with_status(path: Path, status: str) -> str | None:
    """The page in a file with another banner; None where there is none, or it is no report."""
    from reports.page.run_status import with_status

    try:
        return with_status(path.read_text(encoding="utf-8"), status)
    except (OSError, UnicodeDecodeError):
        return None


def _times(out: Path) -> dict[Path, int]:
    """The records below a folder, and when each was written."""
    times = {}
    for path in record_files([out]):
        with suppress(FileNotFoundError):  # another run has just replaced it
            times[path] = path.stat().st_mtime_ns
    return times


__all__ = ["LiveReport"]
