"""Runs one cell and makes its record."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from methods.base import PruneResult
from methods.registry import method_class
from methods.structure.decoder import read_decoder
from suite.evaluation.measure import Measured, add_size, measure_dense, measure_pruned
from suite.machine.environment import code_version, environment
from suite.machine.phases import PhaseLog
from suite.machine.threads import using_threads
from suite.planning.method_of_cell import method_of, part_versions, parts_of, pattern_for
from suite.results.records.record import (
    CalibrationIdentity,
    CodeVersion,
    Failure,
    Metric,
    ModelIdentity,
    ModuleReport,
    Record,
    ReferenceSpeed,
)
from suite.results.statistics.model_metrics import cost_metrics
from suite.running.model_session import ModelSession
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    import pandas as pd

    from methods.base import CalibrationSet
    from methods.masks.pattern import SparsityPattern
    from suite.cell import CalibrationSpec, Cell
    from suite.models.loading import LoadedModel
    from suite.sharing import CellShare


def run_cell(
    cell: Cell, session: ModelSession, watcher: Watcher | None = None
) -> tuple[Record, pd.DataFrame | None]:
    """Prunes and measures one cell.

    Any error becomes a failed record with its traceback, so that one cell never stops the others; only
    interrupts (KeyboardInterrupt, SystemExit) are raised.

    Args:
        cell: the cell to run.
        session: keeps what cells of one model share.
        watcher: receives progress events.

    Returns:
        The record, not yet sealed, and its per-item data (None if the cell failed).
    """
    run = CellRun(cell, session, watcher or Silent())
    with using_threads(cell.threads):
        try:
            run.measure()
            return run.record(), run.items()
        except Exception as error:  # a method may raise anything; it goes into the record
            session.discard()
            return run.record(error), None
        finally:
            session.release()


def present_code(cell: Cell) -> CodeVersion:
    """Returns the version of the code that would run `cell` now."""
    return code_version(
        method_class(cell.method).version if cell.prunes else None, part_versions=part_versions(cell)
    )


def failed_record(cell: Cell, phase: str, error: Exception) -> Record:
    """Returns the record of a cell that failed before it began.

    Args:
        cell: the cell.
        phase: name of the phase that failed.
        error: the error.
    """
    return Record(
        status="failed",
        created=utc_now(),
        cell=cell,
        code=present_code(cell),
        environment=environment(),
        failure=_failure(phase, error),
    )


def utc_now() -> str:
    """Returns the current time in the format of records: ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class CellRun:
    """Runs one cell step by step and collects what goes into its record.

    Args:
        cell: the cell to run.
        session: keeps what cells of one model share.
        watcher: receives progress events.

    Attributes:
        remarks: what a reader of the record should know about the model, one sentence each.
    """

    def __init__(self, cell: Cell, session: ModelSession, watcher: Watcher) -> None:
        self.remarks: list[str] = []
        self._planned = cell
        self._cell = cell  # `load` replaces it by the cell as run, with the first token decided
        self._session = session
        self._watcher = watcher
        self._created = utc_now()
        self._log = PhaseLog(session.device, watcher)
        self._model: ModelIdentity | None = None
        self._calibration: CalibrationIdentity | None = None
        self._reference_speed: ReferenceSpeed | None = None
        self._share: CellShare | None = None
        self._result: PruneResult | None = None
        self._pruned = Measured()
        self._measured = Measured()

    def measure(self) -> None:
        """Loads, prunes, checks and evaluates."""
        session, log = self._session, self._log
        loaded = self.load(reference_speed=True)
        cell, share = self._cell, self._shared
        inputs, reference = session.inputs(cell), session.reference(cell)
        if cell.is_dense:
            with share.dense_measured():
                self._measured = measure_dense(loaded, cell, inputs, reference, log)
            add_size(self._measured, loaded, (), None)
            return
        remarks = share.complete_reference(
            log,
            self._watcher,
            lambda missing, inner: measure_dense(loaded, missing, inputs, reference, inner),
        )
        self.prune(loaded)
        self._measured = measure_pruned(
            loaded, cell, inputs, reference, log, dense_again=lambda: session.dense_model(cell)
        )
        self._measured.remarks += [f"the dense reference: {remark}" for remark in remarks]

    def load(self, *, reference_speed: bool) -> LoadedModel:
        """Loads the dense model, and decides whether sequences begin with the tokenizer's first token.

        Args:
            reference_speed: whether to measure the machine's reference speed with the model.
        """
        planned, session, log = self._planned, self._session, self._log
        with log.timed("load"):
            loaded = session.dense_model(planned)
        self._model = loaded.identity
        self.remarks += loaded.remarks
        if reference_speed:
            with log.timed("reference speed"):
                self._reference_speed = session.reference_speed()
        choice = session.first_token(planned, log)
        if choice is not None:
            self._cell = session.inputs(planned).decided(planned, first_token=choice.taken)
            self.remarks.append(choice.remark)
        self._share = session.share(self._cell, planned)
        return loaded

    def prune(self, loaded: LoadedModel) -> None:
        """Prunes the loaded model, measures time and memory, and checks the result."""
        method, share, log = method_of(self._cell), self._shared, self._log
        spec = self._cell.calibration
        calibration = None if spec is None else self._calibrate(spec, share)
        pattern = self._pattern(loaded, calibration)
        n_targets = sum(1 for _ in read_decoder(loaded.model).targets())
        with share.initial_prunes(), log.timed("prune", n_targets):
            result = method.prune(
                loaded.model,
                pattern,
                calibration,
                placement=loaded.placement,
                on_layer=lambda _: log.stepped(),
            )
        cost = log.costs[-1]
        if (known := share.known_prunes) is not None:
            log.charge(known)
        for name, seconds in result.phases.items():
            log.add(name, seconds)
        with log.timed("check"):
            self._session.check(method, pattern, result)
        share.offer(method, loaded, calibration, result, cost)
        self._result = result
        self._pruned.metrics.append(
            Metric(name="sparsity", protocol="target-modules", value=result.sparsity, direction="none")
        )
        add_size(self._pruned, loaded, result.layers, self._cell.pattern)

    def record(self, error: Exception | None = None) -> Record:
        """Returns the record of a finished cell, or of one that failed with `error`."""
        result = self._result if error is None else None
        measured = self._measured if error is None else Measured()
        shared = tuple(self._share.parts) if self._share else ()
        pruned = [*self._pruned.metrics, *cost_metrics(self._log.costs, shared)] if error is None else []
        return Record(
            status="complete" if error is None else "failed",
            created=self._created,
            cell=self._planned,
            code=present_code(self._planned),
            environment=environment(self._session.device),
            model=self._model,
            calibration=self._calibration,
            mask_digest=result.mask_digest if result else None,
            initial_mask_digest=result.initial.mask_digest if result and result.initial else None,
            parts=parts_of(self._planned),
            placement=self._session.placement.weights,
            shared=shared,
            phases=tuple(self._log.costs),
            reference_speed=self._reference_speed,
            metrics=(*measured.metrics, *pruned),
            windows=tuple(measured.windows),
            divergences=tuple(measured.divergences),
            tasks=tuple(measured.tasks),
            answers=measured.answers,
            modules=tuple(map(ModuleReport.of, result.layers)) if result else (),
            warnings=(*self.remarks, *(_warnings(result) if result else ()), *measured.remarks),
            failure=None if error is None else _failure(self._log.current, error),
        )

    def items(self) -> pd.DataFrame:
        """Returns one row per measured item (`suite.results.records.items.ItemRow`)."""
        return self._measured.items()

    @property
    def _shared(self) -> CellShare:
        assert self._share is not None, "call load first"
        return self._share

    def _pattern(self, loaded: LoadedModel, calibration: CalibrationSet | None) -> SparsityPattern:
        if self._cell.allocation is None:
            return pattern_for(self._cell, loaded.model, calibration, loaded.placement)
        with self._log.timed("allocate"):
            return pattern_for(self._cell, loaded.model, calibration, loaded.placement)

    def _calibrate(self, spec: CalibrationSpec, share: CellShare) -> CalibrationSet:
        self._log.begin("calibrate")
        timed = self._session.inputs(self._cell).calibrations[spec]
        self._log.add("calibrate", timed.seconds)
        share.calibrated(spec.source, timed.identity.digest, timed.seconds)
        self._calibration = timed.identity
        return timed.calibration


def _warnings(result: PruneResult) -> tuple[str, ...]:
    return tuple(f"{report.module}: {warning}" for report in result.layers for warning in report.warnings)


def _failure(phase: str, error: Exception) -> Failure:
    return Failure(
        phase=phase,
        error=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )


__all__ = ["CellRun", "failed_record", "present_code", "run_cell", "utc_now"]
