"""Progress bars on stderr: one over the cells, one over the work of the present phase, with time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from suite.cell import Cell

if TYPE_CHECKING:
    from rich.progress import TaskID

    from suite.executors.worker import Progress as WorkerProgress


class ProgressBars:
    """A watcher for people. Where stderr is no terminal, it prints a line a cell instead.

    Args:
        n_cells: how many cells the plan will run.
        console: where to draw; stderr by default.
    """

    def __init__(self, n_cells: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            # On a narrow terminal the names give way, not the numbers.
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            BarColumn(bar_width=16, table_column=Column(min_width=8)),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("left"),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._cells = self._bars.add_task("cells", total=n_cells)
        self._phase = self._bars.add_task("", total=None, visible=False)
        self._of_worker: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def cell_started(self, cell: Cell) -> None:
        """Names the cell."""
        self._bars.update(self._cells, description=cell.label)

    def phase_started(self, name: str, steps: int | None) -> None:
        """Starts the lower bar anew."""
        self._bars.reset(self._phase, description=f"  {name}", total=steps, visible=True)

    def stepped(self, steps: int = 1) -> None:
        """Moves the lower bar."""
        self._bars.advance(self._phase, steps)

    def worker_at(self, worker: str, cell: Cell | None, progress: WorkerProgress) -> None:
        """Shows how far one of several workers is, each in a line of its own."""
        if worker not in self._of_worker:
            self._of_worker[worker] = self._bars.add_task("", total=None)
        text = "" if cell is None else f"  {worker}: {cell.label}, {progress.phase}"
        self._bars.update(
            self._of_worker[worker],
            description=text,
            completed=progress.done,
            total=progress.steps,
            visible=cell is not None,
        )

    def cell_ended(self, cell: Cell, outcome: str) -> None:
        """Prints how the cell ended."""
        self._bars.update(self._phase, visible=False)
        if outcome != "kept":
            self._bars.advance(self._cells)
        self._console.print(f"{outcome:>8}  {cell.label}", markup=False, soft_wrap=True)


__all__ = ["ProgressBars"]
