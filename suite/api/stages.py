"""A run of a suite in three steps: plan it for a machine, prepare it, carry it out."""

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
from suite.planning.resume import Existing, PlannedCell, compare_with_inputs, decide
from suite.results import Record, ResultStore, load_record
from suite.running.run_cell import present_code
from suite.storage.files import make_folder, require_folder
from suite.tracking import SuiteRun, Tracker, Tracking

if TYPE_CHECKING:
    from methods.base import Weights

Warn = Callable[[str], None]
"""Called with one line of warning for the user."""


class RunWatcher(CellsWatcher, AbstractContextManager["RunWatcher"], Protocol):
    """Receives the progress events of a run; entered as a context while cells run."""

    def lines(self) -> Sequence[str]:
        """Returns what is being done at the moment, one line per running cell."""
        ...


@dataclass(frozen=True, repr=False)
class SuiteOutcome:
    """How a run of a suite ended.

    Attributes:
        cells: the plan.
        finished: cells that were run successfully.
        kept: cells that were not run because they already had a record.
        failed: cells that were run and failed, each with the reason.
        out: the folder of the records.
        report: the report's file; None if there were no cells.
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
        """The records of all cells that did not fail, in the order of the plan; read from `out` on first use.

        Raises:
            FileNotFoundError, RecordError: another program has removed or damaged a record.
        """
        store, failed = ResultStore(self.out), {entry.cell.digest for entry in self.failed}
        return tuple(load_record(store.path_of(cell)) for cell in self.cells if cell.digest not in failed)


@dataclass(frozen=True)
class PlannedSuite:
    """A suite whose cells are known, each marked as to be run or not.

    Attributes:
        name: name of the suite.
        out: the folder for records and report.
        existing: how to treat cells that already have a record.
        weights: where the models' weights are kept.
        executor: what runs the cells; it must be open.
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
        """Compares the cells with the records in `out` and with the machine's memory.

        Args:
            name: name of the suite.
            cells: the cells, in the dtype in which they run.
            executor: what runs the cells.
            out: the folder for records and report; created by the first write.
            existing: how to treat cells that already have a record.
            weights: where the models' weights are kept.
            warn: called with one line about cells that may not fit into memory.

        Raises:
            InputError: `out` is not a folder, a cell has a record there and `existing` is `fail`, or a cell
                certainly needs more memory than there is.
        """
        require_folder(out)
        planned = decide(cells, ResultStore(out), existing, code=present_code)
        check_fits(planned, executor.device, executor.available(), weights=weights, warn=warn)
        return cls(name, out, existing, weights, executor, planned)

    def prepared(self, *, warn: Warn) -> PreparedSuite:
        """Reads and checks the inputs of all cells (models, texts, tasks, prompts) before the first one runs.

        Args:
            warn: called with remarks on models that matter to the results, and with each kept stale record.

        Raises:
            InputError: an input of a cell cannot be used.
            AssetError: a built-in model or text could not be fetched.
        """
        inputs = preflight([entry.cell for entry in self.cells])
        for (name, _, _), of_model in inputs.items():
            for remark in of_model.remarks:
                warn(f"{name}: {remark}")
        cells = compare_with_inputs(self.cells, self.existing, inputs)
        for entry in cells:
            if entry.state.kind == "stale" and not entry.runs:
                reason = entry.state.reason
                warn(f"stale, kept: {entry.cell.label} ({reason}); --existing rerun-stale runs it again")
        ResultStore(self.out).sweep()
        return PreparedSuite(replace(self, cells=cells), inputs)


@dataclass(frozen=True)
class PreparedSuite:
    """A planned suite whose inputs have been read.

    Attributes:
        plan: the suite; records that were made from other inputs are marked as stale.
        inputs: what the cells read, by model.
    """

    plan: PlannedSuite
    inputs: Mapping[ModelKey, Inputs]

    @property
    def n_to_run(self) -> int:
        """Number of cells that will run."""
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
        """Runs the cells that have to run; each record is written before the next cell begins.

        The report exists from the start and is updated while cells run.

        Args:
            watcher: receives progress events.
            warn: called with errors of the report or the tracker.
            reuse: whether work that cells share is done once and kept for the others.
            track: name and instance of a tracker that follows the run.
            on_written: called with the file of each record once it is written.

        Raises:
            InputError: the results folder cannot be created, a cell needs more than any machine of a cluster
                has, or another program damaged the records meanwhile, so that no report can be made.
            OSError: a record could not be written (e.g. a full disk); all earlier ones are kept.
            PoolError: all workers in other processes are lost; all records received before are stored.
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
                # If it raises, it stays None: later records of other workers are only stored.
                callback, on_written = on_written, None
                callback(path)
                on_written = callback

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
