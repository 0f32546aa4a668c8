"""A run of a suite in three steps: planned for a machine, prepared, carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from suite.api.live_report import LiveReport
from suite.cell import Cell
from suite.evaluation.inputs import Inputs, ModelKey
from suite.executors.executor import CellsWatcher, Executor, Job
from suite.executors.options import worker_options
from suite.executors.outcome import FailedCell, RecordWriter
from suite.planning.estimate import check_fits
from suite.planning.preflight import preflight
from suite.planning.resume import Existing, PlannedCell, decide, hold_against_inputs
from suite.results import Record, ResultStore, load_record
from suite.running.run_cell import present_code
from suite.storage.files import make_folder, require_folder
from suite.tracking import SuiteRun, Tracker, Tracking

if TYPE_CHECKING:
    from methods.base import Weights

Warn = Callable[[str], None]
"""Gets one line for whoever runs the suite."""


class RunWatcher(CellsWatcher, AbstractContextManager["RunWatcher"], Protocol):
    """Hears of a run's progress; it is entered while cells run."""

    def lines(self) -> Sequence[str]:
        """What is being done at the moment, a line for each cell that runs."""
        ...


@dataclass(frozen=True, repr=False)
class SuiteOutcome:
    """How a run of a suite ended.

    Attributes:
        cells: the plan.
        finished: cells that were run and have numbers.
        kept: cells whose record stood already.
        failed: cells that were run and have no numbers, each with the reason.
        out: the folder of the records.
        report: the report's file; None where there were no cells.
    """

    cells: tuple[Cell, ...]
    finished: tuple[Cell, ...]
    kept: tuple[Cell, ...]
    failed: tuple[FailedCell, ...]
    out: Path
    report: Path | None

    def __repr__(self) -> str:
        counts = f"{len(self.finished)} finished, {len(self.kept)} kept, {len(self.failed)} failed"
        return f"<SuiteOutcome: {counts}, in {self.out}>"

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """Those of all cells that have not failed, in the order of the plan; read from `out` on first use.

        Raises:
            FileNotFoundError, RecordError: another program removed or damaged one since.
        """
        store, failed = ResultStore(self.out), {entry.cell.digest for entry in self.failed}
        return tuple(load_record(store.path_of(cell)) for cell in self.cells if cell.digest not in failed)


@dataclass(frozen=True)
class PlannedSuite:
    """A suite whose cells are known, and which of them have to run.

    Attributes:
        name: the suite's.
        out: the folder for records and report.
        existing: what becomes of cells that have a record.
        weights: where models are.
        executor: where cells run; it has to be open.
        cells: the plan.
    """

    name: str
    out: Path
    existing: Existing
    weights: Weights
    executor: Executor
    cells: Sequence[PlannedCell]

    @property
    def report(self) -> Path:
        """The report's file."""
        return self.out / "report.html"

    @classmethod
    def of(
        cls,
        name: str,
        cells: Sequence[Cell],
        executor: Executor,
        *,
        out: Path,
        existing: Existing,
        weights: Weights,
        warn: Warn,
    ) -> Self:
        """Holds the cells against the records in `out`, and against the machine's memory.

        Args:
            name: the suite's.
            cells: in the dtype in which they run.
            executor: where they run.
            out: the folder for records and report; made by the first write.
            existing: what becomes of cells that have a record.
            weights: where models are.
            warn: gets a line about cells that may not fit.

        Raises:
            InputError: `out` is no folder, a record stands there and `existing` is `fail`, or a cell surely
                takes more memory than there is.
        """
        require_folder(out)
        planned = decide(cells, ResultStore(out), existing, code=present_code)
        check_fits(planned, executor.device, executor.available(), weights=weights, warn=warn)
        return cls(name, out, existing, weights, executor, planned)

    def prepared(self, *, warn: Warn) -> PreparedSuite:
        """Reads what the cells read: models, texts, tasks and prompts are checked before the first one runs.

        Args:
            warn: gets what a reader of the numbers should know of a model, and which stale records are kept.

        Raises:
            InputError: something that a cell reads is not usable.
            AssetError: a built-in model or text could not be fetched.
        """
        inputs = preflight([entry.cell for entry in self.cells])
        for (name, _, _), of_model in inputs.items():
            for remark in of_model.remarks:
                warn(f"{name}: {remark}")
        cells = hold_against_inputs(self.cells, self.existing, inputs)
        for entry in cells:
            if entry.state.kind == "stale" and not entry.runs:
                reason = entry.state.reason
                warn(f"stale, kept: {entry.cell.label} ({reason}); --existing rerun-stale runs it anew")
        ResultStore(self.out).sweep()
        return PreparedSuite(replace(self, cells=cells), inputs)


@dataclass(frozen=True)
class PreparedSuite:
    """A planned suite whose inputs have been read.

    Attributes:
        plan: the suite, with records marked as stale that were made from other inputs.
        inputs: what its cells read, by model.
    """

    plan: PlannedSuite
    inputs: Mapping[ModelKey, Inputs]

    @property
    def n_to_run(self) -> int:
        """Cells that will run."""
        return sum(entry.runs for entry in self.plan.cells)

    def carry_out(
        self,
        watcher: RunWatcher,
        *,
        warn: Warn,
        reuse: bool = True,
        track: tuple[str, Tracker] | None = None,
        on_written: Callable[[Path], None] | None = None,
    ) -> SuiteOutcome:
        """Runs the cells that have to run; each record is on the disk before the next cell begins.

        The report is there from the start and brought up to date while cells run.

        Args:
            watcher: hears of progress.
            warn: gets what goes wrong with report or tracker.
            reuse: whether what cells share is computed once and kept for the others.
            track: name and instance of a tracker that is told of the run.
            on_written: gets the file of each record once it is on the disk.

        Raises:
            InputError: the results folder cannot be made, a cell is larger than any machine of a cluster, or
                another program damaged the records meanwhile, so that no report can be made of them.
            OSError: a record could not be written (a full disk); all earlier ones stand.
            PoolError: all workers in other processes are lost; what had come in is stored.
        """
        make_folder(self.plan.out)
        plan, n_kept = self.plan, len(self.plan.cells) - self.n_to_run
        store = ResultStore(plan.out)
        options = worker_options(plan.cells, plan.out, reuse=reuse, weights=plan.weights)
        live = LiveReport(
            plan.out, plan.name, n_kept=n_kept, n_cells=len(plan.cells), doing=watcher.lines, warn=warn
        )

        def written(path: Path) -> None:
            nonlocal on_written
            tracking.record_written(path)
            live.cell_ended(writer.outcome)
            if on_written is not None:
                # Once it has raised, what other workers still bring in is only stored.
                told, on_written = on_written, None
                told(path)
                on_written = told

        writer = RecordWriter(store, watcher, written)
        name, tracker = track or (None, None)
        tracked = SuiteRun(plan.name, plan.out, len(plan.cells))
        with Tracking(name, tracker, tracked, warn=warn) as tracking, live:
            for entry in plan.cells:
                if not entry.runs:
                    tracking.record_written(store.path_of(entry.cell))
            with watcher:
                plan.executor.run(Job(plan.cells, self.inputs, options, writer, watcher))
            outcome = writer.outcome
            if not outcome.failed:
                plan.executor.forget_shared(options)
            if plan.cells:
                is_final = live.finish()
                if not is_final:
                    warn(f"{live.path} is being written by another run, which shows these cells too")
                tracking.finished(live.path if is_final else None, failed=bool(outcome.failed))
        return SuiteOutcome(
            cells=tuple(entry.cell for entry in plan.cells),
            finished=outcome.finished,
            kept=outcome.kept,
            failed=outcome.failed,
            out=plan.out,
            report=live.path if plan.cells else None,
        )


__all__ = ["PlannedSuite", "PreparedSuite", "RunWatcher", "SuiteOutcome"]
