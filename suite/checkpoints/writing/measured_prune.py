"""One prune under the clock and the memory watch, and what `pruning.json` says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from methods.base import PhaseClock, Placement, PruneResult, PruningMethod
from methods.masks.pattern import SparsityPattern
from methods.structure.decoder import read_decoder
from suite.cell import DType
from suite.evaluation.inputs import Inputs, Timed
from suite.machine.environment import code_version, environment
from suite.machine.peak_memory import MemoryWatch
from suite.models.loading import stored_dtypes
from suite.planning.method_of_cell import method_of, part_versions, pattern_for

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from suite.cell import Cell
    from suite.evaluation.first_token import FirstTokenChoice
    from suite.models.loading import LoadedModel
    from suite.watcher import Watcher

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MeasuredPrune:
    """What a prune did and what it took.

    Attributes:
        cell: what was asked for.
        method: what pruned.
        pattern: what was removed, an allocation's included.
        placement: where the layers were.
        device: where they computed.
        result: masks, reports, seconds by phase.
        calibration: what was looked at; None where nothing was.
        seconds: of `allocate` and `prune`.
        memory: the peaks of the prune.
        first_token: whether sequences begin with the model's first token; None where it was no question.
    """

    cell: Cell
    method: PruningMethod
    pattern: SparsityPattern
    placement: Placement
    device: torch.device
    result: PruneResult
    calibration: Timed | None
    seconds: Mapping[str, float]
    memory: MemoryWatch
    first_token: FirstTokenChoice | None

    def summary(self, loaded: LoadedModel, n_zeros: Mapping[str, int]) -> dict[str, Any]:
        """What `pruning.json` holds.

        Args:
            loaded: the model that was pruned.
            n_zeros: target name -> zeros in its stored weight, which may be more than were pruned: a dense
                weight was 0 already, or a reconstruction made one 0.
        """
        beforehand = {"calibrate": self.calibration.seconds if self.calibration else 0.0}
        if self.cell.allocation is not None:
            beforehand["allocate"] = self.seconds["allocate"]
        allocation, calibration = self.cell.allocation, self.calibration
        return {
            "schema_version": SCHEMA_VERSION,
            "model": loaded.identity.model_dump(mode="json"),
            "method": self.cell.method,
            "settings": self.cell.settings,
            "pattern": self.cell.pattern,
            "allocation": None if allocation is None else allocation.model_dump(mode="json"),
            "placement": self.placement.weights,
            "sparsity": self.result.sparsity,
            "prune_seconds": sum(beforehand.values()) + self.seconds["prune"],
            "phases": {**beforehand, **self.result.phases},
            "peak_host_bytes": self.memory.host_bytes,
            "peak_device_bytes": self.memory.device_bytes,
            "calibration": calibration.identity.model_dump(mode="json") if calibration else None,
            "mask_digest": self.result.mask_digest,
            "first_token": None if self.first_token is None else self.first_token.taken,
            "warnings": [
                *loaded.remarks,
                *_dtype_remarks(self.cell),
                *([self.first_token.remark] if self.first_token else []),
            ],
            "modules": self._modules(n_zeros),
            "code": code_version(self.method.version, part_versions(self.cell)).model_dump(mode="json"),
            "environment": environment(self.device).model_dump(mode="json"),
        }

    def _modules(self, n_zeros: Mapping[str, int]) -> dict[str, Any]:
        modules = {}
        for report in self.result.layers:
            fields = {name: value for name, value in asdict(report).items() if name != "module"}
            modules[report.module] = {
                **fields,
                "sparsity": report.sparsity,
                "n_zeros": n_zeros[report.module],
            }
        return modules


def _dtype_remarks(cell: Cell) -> list[str]:
    """Says so where the checkpoint is in another dtype than the model's files."""
    import torch

    written: torch.dtype = getattr(torch, cell.dtype)
    stored = [dtype for dtype in stored_dtypes(cell.model, cell.revision) if dtype != written]
    if not stored:
        return []
    names = [str(dtype).removeprefix("torch.") for dtype in stored]
    rounded = [dtype for dtype in stored if torch.promote_types(dtype, written) != written]
    remark = (
        f"weights that are stored as {' and '.join(names)} were computed with and written as {cell.dtype}"
    )
    if not rounded:
        return [f"{remark}, which holds every one of them exactly"]
    name = str(rounded[0]).removeprefix("torch.")
    keeps = f" (--dtype {name} keeps them)" if name in get_args(DType) else ""
    return [f"{remark}, so those of {name} were rounded{keeps}"]


def prune_measured(
    cell: Cell,
    model: PreTrainedModel,
    inputs: Inputs,
    *,
    placement: Placement,
    device: torch.device,
    watcher: Watcher,
    first_token: FirstTokenChoice | None,
) -> MeasuredPrune:
    """Prunes `model` as `cell` asks, with the model's first token before each sequence if that was chosen.

    Raises:
        InputError: the allocation cannot divide the pattern among the targets.
        PruningError: the prune failed.
    """
    cell = inputs.decided(cell, first_token=first_token is not None and first_token.taken)
    method = method_of(cell)
    timed = None if cell.calibration is None else inputs.calibrations[cell.calibration]
    calibration = timed.calibration if timed else None
    watcher.phase_started("prune", sum(1 for _ in read_decoder(model).targets()))
    clock = PhaseClock(device=device)
    with clock.phase("allocate"):
        pattern = pattern_for(cell, model, calibration, placement)
    with MemoryWatch(device) as memory, clock.phase("prune"):
        result = method.prune(
            model, pattern, calibration, placement=placement, on_layer=lambda _: watcher.stepped()
        )
    return MeasuredPrune(
        cell=cell,
        method=method,
        pattern=pattern,
        placement=placement,
        device=device,
        result=result,
        calibration=timed,
        seconds=clock.seconds,
        memory=memory,
        first_token=first_token,
    )


__all__ = ["MeasuredPrune", "prune_measured"]
