"""The progress display of a run on stderr: a bar over all cells with the time left, and one line per cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from suite.cell import Cell

if TYPE_CHECKING:
    from suite.executors.worker import Progress as WorkerProgress
    from suite.results.records.record import Record

LABEL_WIDTH = 48
"""Labels of cells are padded to this number of characters, so that the numbers of most lines are aligned."""


class ProgressBars:
    """A watcher that shows a bar and what is being done; without a terminal only one line per cell.

    Args:
        n_cells: number of cells that the plan will run.
        console: where to draw; stderr by default.
        numbers: returns the main numbers of a record as a short text.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        n_cells: int,
        console: Console | None = None,
        numbers: Callable[[Record], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._numbers = numbers
        self._console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._started = self._last_ended = clock()
        self._n_cells, self._n_ended = n_cells, 0
        self._cell: Cell | None = None
        self._phase, self._done, self._steps = "", 0, None  # type: str, int, int | None
        self._workers: dict[str, str] = {}
        self._is_drawn = False
        self._bars = _Bars(self)
        self._bar = self._bars.add_task("", total=max(1, n_cells), counted="", left="")

    def __enter__(self) -> ProgressBars:
        self._started = self._last_ended = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_drawn:
            self._bars.stop()

    def cell_started(self, cell: Cell) -> None:
        """Sets the cell to show."""
        self._draw()
        self._cell, self._phase, self._done, self._steps = cell, "", 0, None

    def phase_started(self, name: str, steps: int | None) -> None:
        """Sets the phase to show."""
        self._phase, self._done, self._steps = name, 0, steps

    def stepped(self, steps: int = 1) -> None:
        """Adds finished steps of the phase."""
        self._done += steps

    def worker_at(self, worker: str, cell: Cell | None, progress: WorkerProgress) -> None:
        """Shows the progress of one of several workers, each on a separate line."""
        self._draw()
        if cell is None:
            self._workers.pop(worker, None)
        else:
            text = _phase(cell, progress.phase, progress.done, progress.steps)
            self._workers[worker] = f"{worker}: {text}"

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """Prints how the cell ended, and its main numbers."""
        self._cell = None
        if outcome != "kept":
            self._n_ended += 1
            self._last_ended = self._clock()
            self._bars.advance(self._bar)
        numbers = ""
        if self._numbers is not None and record is not None and record.failure is None:
            numbers = self._numbers(record)
        line = f"{outcome:>8}  {cell.label:<{LABEL_WIDTH}}  {numbers}".rstrip()
        if self.is_on_terminal and numbers and len(line) > self._console.width:
            line = f"{outcome:>8}  {cell.label}\n{'':>8}  {numbers}"
        self._console.print(line, markup=False, soft_wrap=True)

    def _draw(self) -> None:
        """Starts the bar with the first cell; until then input is checked, and errors are printed instead."""
        if not self._is_drawn:
            self._is_drawn = True
            self._bars.start()

    @property
    def is_on_terminal(self) -> bool:
        """Whether the output is a terminal."""
        return self._console.is_terminal

    def show(self, parts: Iterable[RenderableType]) -> None:
        """Prints tables and other parts in place of the bar, each after an empty line."""
        for part in parts:
            self._console.print()
            self._console.print(part)

    def seconds_left(self) -> float | None:
        """Estimates the time left from the cells that ended; None before the first and after the last one."""
        if self._n_ended in (0, self._n_cells):
            return None
        total = (self._last_ended - self._started) / self._n_ended * self._n_cells
        return max(0.0, total - (self._clock() - self._started))

    def lines(self) -> list[str]:
        """Returns what is being done at the moment, one line per running cell."""
        cell = self._cell  # another thread draws the bar
        if cell is not None:
            return [_phase(cell, self._phase, self._done, self._steps)]
        return list(self._workers.copy().values())

    @property
    def counted(self) -> str:
        """The number of finished cells as text, such as `3 of 7 cells`."""
        return f"{self._n_ended} of {self._n_cells} cell{'' if self._n_cells == 1 else 's'}"


class _Bars(Progress):
    """rich's progress bars, followed by the lines of what is being done."""

    def __init__(self, shown: ProgressBars) -> None:
        self._shown = shown
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.fields[counted]}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=shown._console,
            expand=True,
            disable=not shown._console.is_terminal,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bar, then one line per running cell, cut off at the terminal's edge."""
        left = self._shown.seconds_left()
        for task in self.tasks:
            task.fields.update(
                counted=self._shown.counted, left="" if left is None else f"about {_clock_time(left)} left"
            )
        yield self.make_tasks_table(self.tasks)
        for line in self._shown.lines():
            yield Text(f"  {line}", overflow="ellipsis", no_wrap=True)


def _phase(cell: Cell, phase: str, done: int, steps: int | None) -> str:
    text = cell.label + (f": {phase}" if phase else "")
    return text if not steps else f"{text}, {min(done, steps)}/{steps}"


def _clock_time(seconds: float) -> str:
    """Formats seconds as `0:07`, `12:30` or `1:02:30`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


__all__ = ["ProgressBars"]
