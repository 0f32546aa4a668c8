"""Times one method on one model and holds it against its floor."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import psutil
import torch

from benchmarks.floor import Floors, floors, forward_seconds, mean_floors
from benchmarks.machine import MachineRates, synchronize
from benchmarks.rows import Row
from benchmarks.work import Workload, work_of
from methods.base import CalibrationSet, Placement, PruneResult, PruningMethod
from methods.contract import dense_weights
from methods.errors import InputError
from methods.masks.pattern import parse_pattern
from methods.registry import settings_of
from suite.machine.peak_memory import MemoryWatch
from suite.planning.method_of_cell import pruned_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SLACK = 1.6
"""A row's time against its floor, as a guess."""

SHORT_OF_MEMORY = "memory ran out"
"""In a warning that says so, and with what the prune went on."""


@dataclass(frozen=True)
class Bench:
    """A model on which methods are timed one after another.

    Attributes:
        stage: of the rows.
        name: of the model.
        model: itself.
        restore: makes its weights dense again.
        calibration: what methods look at.
        placement: how it is pruned.
        load: its sizes.
        rates: measures the machine as it is now.
        device: where layers compute.
    """

    stage: str
    name: str
    model: PreTrainedModel
    restore: Callable[[], None]
    calibration: CalibrationSet
    placement: Placement
    load: Workload
    rates: Callable[[], MachineRates]
    device: torch.device


@dataclass(frozen=True)
class _Repeat:
    """One prune between two measurements of the machine."""

    seconds: float
    result: PruneResult
    floors: Floors
    rates: MachineRates
    forward_seconds: float
    peak_host_bytes: int
    peak_device_bytes: int | None


def empty_row(bench: Bench, method: str, pattern: str) -> Row:
    """What is known before anything has run."""
    return Row(
        stage=bench.stage,
        model=bench.name,
        method=method,
        pattern=pattern,
        dtype=str(bench.model.dtype).removeprefix("torch."),
        n_samples=bench.calibration.n_samples,
        seqlen=bench.calibration.seqlen,
        n_layers=len(bench.load.layers),
        placement=str(getattr(bench.placement, "weights", "resident")),
        batch_size=bench.placement.batch_size_for(bench.calibration.seqlen, bench.device),
    )


def expected_seconds(bench: Bench, method: str, rates: MachineRates) -> float:
    """About how long a row will take, its measurements included: for whoever has to end in time."""
    pruner = pruner_of(method)
    work = work_of(pruner.name, settings_of(pruner), bench.load)
    found = floors(work, bench.load, rates)
    return SLACK * max(found.usual.seconds, found.strict.seconds)


def pruner_of(method: str) -> PruningMethod:
    """A registered method with its defaults, or a recipe.

    Raises:
        InputError: there is none, or the recipe has an allocation, which is timed apart.
    """
    pruner, allocation = pruned_by(method, {}, None, ())
    if allocation is not None:
        raise InputError(f"leave the allocation {allocation.name!r} out: a method is timed by itself")
    return pruner


def restoring(model: PreTrainedModel) -> Callable[[], None]:
    """Copies all weights to the CPU; gives what writes them back."""
    dense = dense_weights(model)

    def restore() -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(dense[name])

    return restore


def time_method(bench: Bench, method: str, pattern: str, *, repeats: int, label: str | None = None) -> Row:
    """Prunes the model `repeats` times; it is dense again afterwards.

    The machine is measured anew before and after each prune, because its speed drifts; a prune is held
    against the mean of the two. The row's times, floors and ratios are all those of one prune, the median by
    seconds (of an even number the quicker of the two in the middle).

    Args:
        bench: the model and what it is pruned with.
        method: a registered name, or a recipe.
        pattern: as a user writes it.
        repeats: how often.
        label: what the row calls the method.
    """
    made = []
    rates = bench.rates()
    for _ in range(repeats):
        repeat, rates = _repeat(bench, method, pattern, rates)
        made.append(repeat)
    middle = sorted(made, key=lambda repeat: repeat.seconds)[(repeats - 1) // 2]
    usual, strict = middle.floors.usual, middle.floors.strict
    on_device = [repeat.peak_device_bytes for repeat in made if repeat.peak_device_bytes is not None]
    return replace(
        empty_row(bench, label or method, pattern),
        seconds=middle.seconds,
        repeats=tuple(repeat.seconds for repeat in made),
        phases=dict(middle.result.phases),
        floor_seconds=usual.seconds,
        floor_parts=usual.parts,
        ratio=middle.seconds / usual.seconds,
        strict_floor=strict.seconds,
        strict_parts=strict.parts,
        strict_ratio=middle.seconds / strict.seconds,
        roofline_seconds=middle.floors.roofline,
        forward_seconds=middle.forward_seconds,
        rates=asdict(middle.rates),
        peak_host_bytes=max(repeat.peak_host_bytes for repeat in made),
        peak_device_bytes=max(on_device, default=None),
        warnings=tuple(dict.fromkeys(said for repeat in made for said in _memory_warnings(repeat.result))),
    )


def _memory_warnings(result: PruneResult) -> Iterator[str]:
    """What a prune and the one it started from say of memory that ran out."""
    if result.initial is not None:
        yield from _memory_warnings(result.initial)
    for report in result.layers:
        yield from (warning for warning in report.warnings if SHORT_OF_MEMORY in warning)


def _repeat(bench: Bench, method: str, pattern: str, before: MachineRates) -> tuple[_Repeat, MachineRates]:
    pruner = pruner_of(method)
    _give_back_memory(bench.device)
    at_start = psutil.Process().memory_info().rss
    try:
        with MemoryWatch(bench.device) as memory:
            synchronize(bench.device)
            start = time.perf_counter()
            result = pruner.prune(
                bench.model,
                parse_pattern(pattern),
                bench.calibration if pruner.needs_calibration else None,
                placement=bench.placement,
            )
            synchronize(bench.device)
            seconds = time.perf_counter() - start
    finally:
        bench.restore()
    _give_back_memory(bench.device)
    after = bench.rates()
    work = work_of(pruner.name, settings_of(pruner), bench.load)
    repeat = _Repeat(
        seconds,
        result,
        mean_floors(floors(work, bench.load, before), floors(work, bench.load, after)),
        before,
        (forward_seconds(bench.load, before) + forward_seconds(bench.load, after)) / 2,
        max(0, memory.host_bytes - at_start),
        memory.device_bytes,
    )
    return repeat, after


def _give_back_memory(device: torch.device) -> None:
    """What was freed goes back to the system, so that the next peak is not hidden in it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


__all__ = [
    "SHORT_OF_MEMORY",
    "Bench",
    "empty_row",
    "expected_seconds",
    "pruner_of",
    "restoring",
    "time_method",
]
