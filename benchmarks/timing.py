"""Times one method on one model and compares it with its floor."""

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
from methods.registry import build, is_recipe, settings_of
from suite.machine.peak_memory import MemoryWatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SLACK = 1.6
"""Guess of a row's total time divided by its floor."""

SHORT_OF_MEMORY = "memory ran out"
"""Text that marks a warning about exhausted memory, which also reports how the prune went on."""


@dataclass(frozen=True)
class Bench:
    """A model on which methods are timed one after another.

    Attributes:
        stage: stage of the rows.
        name: name of the model.
        model: the model itself.
        restore: makes its weights dense again.
        calibration: calibration set of the methods.
        placement: how the model is placed while it is pruned.
        load: its sizes.
        rates: measures the present speed of the machine.
        device: the device on which layers compute.
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
    """Returns a row with what is known before anything has run."""
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
    """Estimates the time of a row including its measurements, for callers with a time limit."""
    pruner = pruner_of(method)
    work = work_of(pruner.name, settings_of(pruner), bench.load)
    found = floors(work, bench.load, rates)
    return SLACK * max(found.usual.seconds, found.strict.seconds)


def pruner_of(method: str) -> PruningMethod:
    """Returns a registered method with its defaults, or a recipe.

    Raises:
        InputError: there is no such method, or the recipe has an allocation, which is not timed with a
            method.
    """
    if not is_recipe(method):
        return build(method)
    from suite.planning.method_of_cell import pruned_by  # needs pydantic, which a GPU machine may lack

    pruner, allocation = pruned_by(method, {}, None, ())
    if allocation is not None:
        raise InputError(f"leave the allocation {allocation.name!r} out: a method is timed by itself")
    return pruner


def restoring(model: PreTrainedModel) -> Callable[[], None]:
    """Copies all weights to the CPU; returns a function that writes them back."""
    dense = dense_weights(model)

    def restore() -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(dense[name])

    return restore


def time_method(bench: Bench, method: str, pattern: str, *, repeats: int, label: str | None = None) -> Row:
    """Prunes the model `repeats` times and restores its dense weights.

    The machine is measured before and after each prune, because its speed drifts; a prune is compared with
    the mean of the two. The row's times, floors and ratios all come from one prune, the median by seconds
    (the quicker of the two in the middle if `repeats` is even).

    Args:
        bench: the model and what it is pruned with.
        method: a registered name, or a recipe.
        pattern: as a user writes it.
        repeats: number of prunes.
        label: name of the method in the row.
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
        warnings=tuple(dict.fromkeys(text for repeat in made for text in _memory_warnings(repeat.result))),
    )


def _memory_warnings(result: PruneResult) -> Iterator[str]:
    """Yields the warnings about exhausted memory of a prune and of the one it started from."""
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
    """Returns freed memory to the system, so that it does not hide the next peak."""
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
