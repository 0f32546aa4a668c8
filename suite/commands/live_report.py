"""The report of a run while it lasts: there from the first moment, and true to what became of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from suite.commands.report import render, write_report
from suite.executors.plan import Outcome
from suite.results.archive import record_files
from suite.results.files import replace_text

SHARE = 0.05
"""Of a run's time that rendering its report may take."""
FIRST_RENDER_S = 2.0
"""What the first one is expected to take: libraries are loaded for it."""
BEAT_S = 20.0
"""So often a page says that its run is alive; `reports.page.run_status.PATIENCE_S` is several times that."""
_PLACE = "<!-- how far the run is -->"
_LOCK = ".report.lock"


class LiveReport:
    """Writes `report.html` of a results folder anew while a run fills it.

    One process writes it: where several runs (shards, say) fill one folder, the first to come does, and when
    it is done the next one. Between cells the records are rendered, if that takes at most `SHARE` of the
    run; meanwhile only the lines at the top are brought up to date. No trouble with the page costs the run
    anything but the page.

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
        self._n_kept, self._n_cells = n_kept, n_cells
        self._doing, self._warn = doing, warn
        self._outcome = Outcome((), (), ())
        self._lock = FileLock(out / _LOCK, timeout=0, thread_local=False)
        self._page: str | None = None
        self._broken = self._finished = False
        self._started = time.monotonic()
        self._spent, self._last = 0.0, FIRST_RENDER_S
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="live report", daemon=True)

    def __enter__(self) -> LiveReport:
        if self._n_kept < self._n_cells:
            self._out.mkdir(parents=True, exist_ok=True)
            self._quietly(self._write)
            self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_beating()
        if not self._finished and self._n_kept < self._n_cells:
            self._quietly(lambda: self._write(running=False))
        self._lock.release()

    def cell_ended(self, outcome: Outcome) -> None:
        """A record was written: renders all of them, if there is time for it.

        Args:
            outcome: how the cells of the run ended so far.
        """
        self._outcome = outcome
        if self._affordable():
            self._quietly(self._render)
        self._quietly(self._write)

    def finish(self) -> Path:
        """Writes the page as it stays, and gives its file.

        Raises:
            InputError: the records cannot be read.
            OSError: the page cannot be written.
        """
        self._stop_beating()
        while self._is_writer():
            shown = _stand(self._out)
            write_report([self._out], self.path, title=self._title)
            self._lock.release()
            # Whoever found the folder locked relies on this run to show what it wrote.
            if _stand(self._out) == shown:
                break
        self._finished = True
        return self.path

    def _affordable(self) -> bool:
        """Whether rendering once more keeps to its share of the time that the run will take."""
        n_run = len(self._outcome.finished) + len(self._outcome.failed)
        expected = (time.monotonic() - self._started) / n_run * (self._n_cells - self._n_kept)
        return self._spent + self._last <= SHARE * expected

    def _render(self) -> None:
        if not self._is_writer():
            return
        began = time.monotonic()
        page = render([self._out], title=self._title)
        with self._writing:
            self._page = page
        self._last = time.monotonic() - began
        self._spent += self._last

    def _write(self, *, running: bool = True) -> None:
        """The page as it was rendered last, with how far the run is now."""
        from reports.page.html import render_waiting
        from reports.page.run_status import run_status, with_status

        if not self._is_writer():
            return
        with self._writing:
            status = run_status(
                n_done=self._n_kept + len(self._outcome.finished),
                n_failed=len(self._outcome.failed),
                n_cells=self._n_cells,
                doing=self._doing(),
                running=running,
            )
            # A run that is resumed begins with the page of the one before.
            page = self._page or _text(self.path)
            self._page = with_status(page, status) or with_status(render_waiting(title=self._title), status)
            assert self._page is not None, "every page has room for it"
            replace_text(self.path, self._page)

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
        return True

    def _quietly(self, work: Callable[[], None]) -> None:
        """Does it; says once what went wrong with it, and lets the page be."""
        if self._broken:
            return
        try:
            work()
        except Exception as error:  # a full disk, a record that is no record: measuring is worth more
            self._broken = True
            self._warn(f"{self.path} is not kept up to date: {error}")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _stand(out: Path) -> dict[Path, int]:
    """The records below a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in record_files([out])}


__all__ = ["LiveReport"]
