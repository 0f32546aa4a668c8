"""What the cells of one model share: the loaded model, its dense weights, tokens, and the machine's floor."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from methods.base import CalibrationSet, Placement
from methods.contract import ModelState
from suite.cell import CalibrationSpec, Cell, PerplexitySpec
from suite.corpora import calibration_set, evaluation_windows
from suite.evaluation.efficiency import machine_floor
from suite.models import LoadedModel, load_model
from suite.plan import check_positions
from suite.results.record import MachineFloor

if TYPE_CHECKING:
    from suite.corpora import EvaluationWindows


@dataclass(frozen=True)
class Timed:
    """A calibration set and what it cost to build, which is charged to every cell that uses it."""

    calibration: CalibrationSet
    seconds: float


@dataclass
class _Bench:
    """One loaded model and what was made for it."""

    key: tuple[object, ...]
    loaded: LoadedModel
    dense: ModelState
    pruned: bool = False
    calibrations: dict[CalibrationSpec, Timed] = field(default_factory=dict)
    windows: dict[PerplexitySpec, EvaluationWindows] = field(default_factory=dict)
    floor: MachineFloor | None = None


class Workbench:
    """Holds one model at a time and gives it out dense, cell after cell.

    Args:
        device: where models are put.
        placement: the batch size of every prune.
    """

    def __init__(self, device: torch.device, placement: Placement = Placement()) -> None:
        self.device = device
        self.placement = placement
        self._bench: _Bench | None = None

    def dense_model(self, cell: Cell) -> tuple[LoadedModel, ModelState]:
        """The cell's model with its dense weights, and the state to hold it to after a prune.

        It counts as pruned from then on: the next call puts the dense weights back.
        """
        key = (cell.model, cell.revision, cell.dtype, cell.trust_remote_code)
        if self._bench is None or self._bench.key != key:
            self._bench = None  # the old model goes before the new one comes
            loaded = load_model(
                cell.model,
                revision=cell.revision,
                dtype=cell.dtype,
                device=self.device,
                trust_remote_code=cell.trust_remote_code,
            )
            self._bench = _Bench(key, loaded, ModelState.of(loaded.model))
        bench = self._bench
        if bench.pruned:
            with torch.no_grad():
                for name, parameter in bench.loaded.model.named_parameters():
                    parameter.copy_(bench.dense.weights[name])
        bench.pruned = True
        return bench.loaded, bench.dense

    def calibration(self, spec: CalibrationSpec) -> Timed:
        """The calibration set of `spec` in the current model's tokens."""
        bench = self._current
        if spec not in bench.calibrations:
            check_positions(bench.loaded.model, spec.seqlen)
            start = time.perf_counter()
            made = calibration_set(
                spec, bench.loaded.tokenizer, vocab_size=bench.loaded.model.config.vocab_size
            )
            bench.calibrations[spec] = Timed(made, time.perf_counter() - start)
        return bench.calibrations[spec]

    def windows(self, spec: PerplexitySpec) -> EvaluationWindows:
        """The evaluation windows of `spec` in the current model's tokens."""
        bench = self._current
        if spec not in bench.windows:
            check_positions(bench.loaded.model, spec.seqlen)
            bench.windows[spec] = evaluation_windows(spec, bench.loaded.tokenizer)
        return bench.windows[spec]

    def floor(self) -> MachineFloor:
        """The machine's floor with the current model, measured once."""
        bench = self._current
        if bench.floor is None:
            bench.floor = machine_floor(bench.loaded.model, self.placement)
        return bench.floor

    def discard(self) -> None:
        """Forgets the model: after a failure nobody knows what state it is in."""
        self._bench = None

    @property
    def _current(self) -> _Bench:
        assert self._bench is not None, "dense_model comes first"
        return self._bench


__all__ = ["Timed", "Workbench"]
