"""Initial prunes from which several cells start: run once, then read from files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from methods.placement.pruned_weights import pruned_weights, put_pruned_weights
from suite.machine.phases import PhaseLog
from suite.planning.method_of_cell import part_versions
from suite.results.records.prune_costs import INITIAL
from suite.results.records.record import PhaseCost, SharedPart
from suite.sharing.folder import SharedFolder
from suite.sharing.identity import digest_of
from suite.sharing.prune_files import has_weights, read_prune, weights_in, write_prune, write_weights
from suite.sharing.shared_masks import initial_cell
from suite.watcher import Silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from methods.base import CalibrationSet, Placement, PruneResult, PruningMethod
    from methods.masks.pattern import SparsityPattern
    from suite.cell import Cell

COST = "cost.json"


class SharedInitialPrunes:
    """Provides `methods.initial` with initial masks while one cell runs.

    Args:
        cell: the cell.
        folder: the folder in which prunes are stored.
        wanted: digests of the prunes to store (see `suite.sharing.shared_masks`).
        conditions: everything else that determines the mask bits: weights, code, machine.
        device: the device on which layers compute.

    Attributes:
        known: recorded costs of the prunes that were read instead of run.
        parts: what was shared, in order of completion; nested initial methods come first.
    """

    def __init__(
        self,
        cell: Cell,
        folder: SharedFolder,
        wanted: frozenset[str],
        conditions: Mapping[str, object],
        device: torch.device,
    ) -> None:
        self.known: list[PhaseCost] = []
        self.parts: list[SharedPart] = []
        self._cell = cell
        self._folder = folder
        self._wanted = wanted
        self._conditions = conditions
        self._device = device

    def prune(
        self,
        method: PruningMethod,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        placement: Placement,
        *,
        weights: bool,
    ) -> PruneResult:
        """See `methods.initial.InitialPrunes.prune`."""
        if initial_cell(self._cell, method).digest not in self._wanted:
            return method.prune(model, pattern, calibration, placement=placement)
        name = self._name(method, calibration, placement)
        with self._folder.locked(name) as entry:
            found = _read(entry, weights=weights and method.reconstructs)
            if found is None:
                n_known, log = len(self.known), PhaseLog(self._device, Silent())
                with log.timed(INITIAL):
                    result = method.prune(model, pattern, calibration, placement=placement)
                cost = added([log.costs[-1], *self.known[n_known:]])
                self._keep(name, method, model, placement, result, cost)
                self._note(method, name, cost, reused=False)
                return result
            result, cost = found
            if weights:
                survivors = weights_in(entry) if method.reconstructs else None
                put_pruned_weights(model, placement, result, survivors)
        self.known.append(cost)
        self._note(method, name, cost, reused=True)
        return replace(result, phases={})

    def offer(
        self,
        method: PruningMethod,
        model: PreTrainedModel,
        calibration: CalibrationSet | None,
        placement: Placement,
        result: PruneResult,
        cost: PhaseCost,
    ) -> None:
        """Stores the prune of this cell if other cells start from it.

        Args:
            method: the method of the cell.
            model: the pruned model.
            calibration: the calibration set that the method used.
            placement: where the layers' weights are kept.
            result: the result of the prune.
            cost: the cost of the prune.
        """
        if initial_cell(self._cell, method).digest in self._wanted:
            name = self._name(method, calibration, placement)
            with self._folder.locked(name) as entry:
                if _read(entry, weights=method.reconstructs) is None:
                    self._keep(name, method, model, placement, result, added([cost, *self.known]))

    def _name(self, method: PruningMethod, calibration: CalibrationSet | None, placement: Placement) -> str:
        cell = initial_cell(self._cell, method)
        looked_at = calibration.digest if calibration is not None and cell.calibration is not None else None
        deciding = {
            **self._conditions,
            "cell": cell.digest,
            "versions": {method.name: method.version, **part_versions(cell)},
            "calibration": looked_at,
            "batch size": placement.batch_size,
        }
        return f"prune-{digest_of(deciding)}"

    def _keep(
        self,
        name: str,
        method: PruningMethod,
        model: PreTrainedModel,
        placement: Placement,
        result: PruneResult,
        cost: PhaseCost,
    ) -> None:
        def write(folder: Path) -> None:
            write_prune(folder, result)
            if method.reconstructs:
                write_weights(folder, pruned_weights(model, placement))
            (folder / COST).write_text(cost.model_dump_json(), encoding="utf-8")

        n_weights = sum(mask.numel for mask in result.keep.values())
        itemsize = model.dtype.itemsize if method.reconstructs else 0
        self._folder.put(name, write, n_weights // 8 + n_weights * itemsize)

    def _note(self, method: PruningMethod, name: str, cost: PhaseCost, *, reused: bool) -> None:
        self.parts.append(
            SharedPart(
                what="initial mask",
                name=method.name,
                digest=name.rpartition("-")[2],
                seconds=cost.seconds,
                reused=reused,
            )
        )


def added(costs: Sequence[PhaseCost]) -> PhaseCost:
    """Returns the total cost of several consecutive prunes as one phase named `initial`."""
    joules = [cost.energy_joules for cost in costs]
    on_device = [cost.peak_device_bytes for cost in costs if cost.peak_device_bytes is not None]
    return PhaseCost(
        name=INITIAL,
        seconds=sum(cost.seconds for cost in costs),
        peak_host_bytes=max((cost.peak_host_bytes or 0 for cost in costs), default=0) or None,
        peak_device_bytes=max(on_device, default=None),
        energy_joules=None if None in joules else sum(j for j in joules if j is not None),
    )


def _read(entry: Path, *, weights: bool) -> tuple[PruneResult, PhaseCost] | None:
    """Reads a stored prune and its cost; None if it is missing or incomplete."""
    try:
        cost = PhaseCost.model_validate(json.loads((entry / COST).read_text(encoding="utf-8")))
        result = read_prune(entry)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return None if weights and not has_weights(entry) else (result, cost)


__all__ = ["SharedInitialPrunes", "added"]
