"""One cell becomes one record."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from methods.base import PhaseClock, PruneResult, token_digest
from methods.contract import ModelState, check_contract
from methods.decoder import read_decoder
from methods.registry import method_class
from suite.evaluation.perplexity import window_losses
from suite.memory import MemoryWatch
from suite.pruning import method_of, part_versions, pattern_for
from suite.results.environment import code_version, environment
from suite.results.record import (
    CalibrationIdentity,
    CodeVersion,
    Failure,
    MachineFloor,
    Metric,
    ModelIdentity,
    ModuleReport,
    PhaseCost,
    Record,
    WindowLosses,
)
from suite.results.statistics import perplexity_from_nll
from suite.watcher import Silent, Watcher
from suite.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

    from methods.base import CalibrationSet
    from methods.pattern import SparsityPattern
    from suite.cell import CalibrationSpec, Cell, PerplexitySpec
    from suite.corpora import EvaluationWindows
    from suite.models import LoadedModel


def run_cell(
    cell: Cell, workbench: Workbench, watcher: Watcher | None = None
) -> tuple[Record, pd.DataFrame | None]:
    """Prunes and measures one cell.

    Whatever goes wrong becomes a failed record with its traceback, so that one cell never costs the others;
    only an interrupt (KeyboardInterrupt, SystemExit) passes through.

    Args:
        cell: what to run.
        workbench: keeps what cells of one model share.
        watcher: hears of progress.

    Returns:
        The record, not yet sealed, and its per-item data (None where it failed).
    """
    run = _CellRun(cell, workbench, watcher or Silent())
    try:
        run.measure()
        return run.record(), run.items()
    except Exception as error:  # whatever a method throws: it goes into the record, with its traceback
        workbench.discard()
        return run.record(error), None


def present_code(cell: Cell) -> CodeVersion:
    """The version of the code that would run `cell` now."""
    return code_version(
        None if cell.is_dense else method_class(cell.method).version, part_versions=part_versions(cell)
    )


class _CellRun:
    """What is gathered while one cell runs."""

    def __init__(self, cell: Cell, workbench: Workbench, watcher: Watcher) -> None:
        self._cell = cell
        self._workbench = workbench
        self._watcher = watcher
        self._created = datetime.now(UTC).isoformat(timespec="seconds")
        self._phase = "load"
        self._phases: list[PhaseCost] = []
        self._model: ModelIdentity | None = None
        self._calibration: CalibrationIdentity | None = None
        self._floor: MachineFloor | None = None
        self._result: PruneResult | None = None
        self._metrics: list[Metric] = []
        self._windows: list[tuple[EvaluationWindows, WindowLosses]] = []
        self._said: list[str] = []

    def measure(self) -> None:
        """Loads, prunes, checks and evaluates."""
        with self._timed("load"):
            loaded, dense = self._workbench.dense_model(self._cell)
        self._model = loaded.identity
        with self._timed("floor"):
            self._floor = self._workbench.floor()
        if not self._cell.is_dense:
            self._prune(loaded, dense)
        for spec in self._cell.perplexity:
            self._measure_perplexity(loaded, spec)

    def record(self, error: Exception | None = None) -> Record:
        """What was gathered, as the record of a finished cell, or of one that `error` ended."""
        result = self._result if error is None else None
        return Record(
            status="complete" if error is None else "failed",
            created=self._created,
            cell=self._cell,
            code=present_code(self._cell),
            environment=environment(self._workbench.device),
            model=self._model,
            calibration=self._calibration,
            mask_digest=result.mask_digest if result else None,
            initial_mask_digest=result.initial.mask_digest if result and result.initial else None,
            phases=tuple(self._phases),
            floor=self._floor,
            metrics=(*self._metrics, *_cost_metrics(self._phases)) if error is None else (),
            windows=tuple(losses for _, losses in self._windows) if error is None else (),
            modules=_module_reports(result) if result else (),
            warnings=(*(_warnings(result) if result else ()), *self._said),
            failure=None if error is None else _failure(self._phase, error),
        )

    def items(self) -> pd.DataFrame:
        """A row an evaluation window: its protocol, place, token digest, loss and predicted tokens."""
        import pandas as pd

        rows = [
            (losses.protocol, item, token_digest(tokens), nll, losses.seqlen - 1)
            for windows, losses in self._windows
            for item, (tokens, nll) in enumerate(zip(windows.input_ids, losses.nll, strict=True))
        ]
        return pd.DataFrame(rows, columns=["protocol", "item", "item_digest", "nll", "n_tokens"])

    def _prune(self, loaded: LoadedModel, dense: ModelState) -> None:
        method = method_of(self._cell)
        spec = self._cell.calibration
        calibration = None if spec is None else self._calibrate(spec)
        pattern = self._pattern(loaded, calibration)
        n_targets = sum(1 for _ in read_decoder(loaded.model).targets())
        with self._timed("prune", n_targets):
            result = method.prune(
                loaded.model,
                pattern,
                calibration,
                placement=self._workbench.placement,
                on_layer=lambda _: self._watcher.stepped(),
            )
        self._phases.extend(PhaseCost(name=name, seconds=seconds) for name, seconds in result.phases.items())
        with self._timed("check"):
            check_contract(method, pattern, dense, loaded.model, result)
        self._result = result
        self._metrics.append(
            Metric(name="sparsity", protocol="target-modules", value=result.sparsity, direction="none")
        )

    def _pattern(self, loaded: LoadedModel, calibration: CalibrationSet | None) -> SparsityPattern:
        if self._cell.allocation is None:
            return pattern_for(self._cell, loaded.model, calibration, self._workbench.placement)
        with self._timed("allocate"):
            return pattern_for(self._cell, loaded.model, calibration, self._workbench.placement)

    def _calibrate(self, spec: CalibrationSpec) -> CalibrationSet:
        self._begin("calibrate")
        timed = self._workbench.inputs(self._cell).calibrations[spec]
        self._phases.append(PhaseCost(name="calibrate", seconds=timed.seconds))
        self._calibration = timed.identity
        return timed.calibration

    def _measure_perplexity(self, loaded: LoadedModel, spec: PerplexitySpec) -> None:
        windows = self._workbench.inputs(self._cell).windows[spec]
        with self._timed(f"evaluate {windows.protocol}", len(windows.input_ids)):
            nll = window_losses(
                loaded.model,
                windows.input_ids,
                on_windows=self._watcher.stepped,
                on_halved=lambda size: self._said.append(
                    f"{windows.protocol}: memory ran out; it went on with batches of {size} windows"
                ),
            ).tolist()
        estimate = perplexity_from_nll(nll)
        self._metrics.append(
            Metric(
                name="perplexity",
                protocol=windows.protocol,
                value=estimate.value,
                stderr=estimate.stderr,
                n=estimate.n,
                direction="lower",
                status=estimate.status,
            )
        )
        finite = tuple(loss if abs(loss) < float("inf") else None for loss in nll)
        losses = WindowLosses(
            protocol=windows.protocol,
            corpus_digest=windows.corpus_digest,
            corpus_revision=windows.corpus_revision,
            seqlen=spec.seqlen,
            limit=windows.limit,
            nll=finite,
        )
        self._windows.append((windows, losses))

    def _begin(self, phase: str, steps: int | None = None) -> None:
        self._phase = phase
        self._watcher.phase_started(phase, steps)

    @contextmanager
    def _timed(self, phase: str, steps: int | None = None) -> Iterator[None]:
        """Charges time and peak memory of the body to `phase`."""
        self._begin(phase, steps)
        clock = PhaseClock(device=self._workbench.device)
        with MemoryWatch(self._workbench.device) as memory, clock.phase(phase):
            yield
        self._phases.append(
            PhaseCost(
                name=phase,
                seconds=clock.seconds[phase],
                peak_host_bytes=memory.host_bytes,
                peak_device_bytes=memory.device_bytes,
            )
        )


def _cost_metrics(phases: list[PhaseCost]) -> list[Metric]:
    """End-to-end prune time after the model is loaded, and the peaks of memory while pruning."""
    beforehand = sum(phase.seconds for phase in phases if phase.name in ("calibrate", "allocate"))
    prune = next((phase for phase in phases if phase.name == "prune"), None)
    if prune is None:
        return []
    costs: list[tuple[str, float | None]] = [
        ("prune_seconds", prune.seconds + beforehand),
        ("peak_host_bytes", prune.peak_host_bytes),
        ("peak_device_bytes", prune.peak_device_bytes),
    ]
    return [
        Metric(
            name=name,
            protocol="",
            value=value,
            direction="lower",
            status="ok" if value is not None else "no accelerator in use",
        )
        for name, value in costs
    ]


def _module_reports(result: PruneResult) -> tuple[ModuleReport, ...]:
    return tuple(ModuleReport(**asdict(report), n_weights=report.n_weights) for report in result.layers)


def _warnings(result: PruneResult) -> tuple[str, ...]:
    return tuple(f"{report.module}: {warning}" for report in result.layers for warning in report.warnings)


def _failure(phase: str, error: Exception) -> Failure:
    return Failure(
        phase=phase,
        error=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )


__all__ = ["present_code", "run_cell"]
