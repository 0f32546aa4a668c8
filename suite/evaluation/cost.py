"""Measures the cost of a model: size in bytes, and tokens per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from suite.evaluation.measured import Measured
from suite.evaluation.speed.sparse_kernels import KernelError, sparse_products, why_no_kernel
from suite.evaluation.speed.tokens_per_second import Speed, measure_speed
from suite.results.records.record import Metric
from suite.results.statistics.model_metrics import PrunedModule, size_metrics, speeds_of
from suite.results.statistics.single import Estimate, mean_stderr

if TYPE_CHECKING:
    from suite.cell import SpeedSpec
    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel

ONLOADED = "layers visited the device one by one"


def add_size(
    measured: Measured, loaded: LoadedModel, modules: Sequence[PrunedModule], pattern: str | None
) -> None:
    """Adds the size of the checkpoint in bytes, as stored and as its zeros would allow.

    Args:
        measured: receives the metrics.
        loaded: the model; pruned or not, its shapes are the same.
        modules: its target modules; empty for the dense model.
        pattern: the pattern that it was pruned to; None if it was not pruned or the pattern is unknown.
    """
    stored = sum(parameter.numel() * parameter.element_size() for parameter in loaded.model.parameters())
    measured.metrics += size_metrics(stored, modules, dtype=loaded.identity.dtype, pattern=pattern)


def add_speed(
    measured: Measured, loaded: LoadedModel, spec: SpeedSpec, pattern: str | None, log: PhaseLog
) -> None:
    """Adds tokens per second, with the dense kernels and, if available, with sparse ones.

    Args:
        measured: receives the metrics; the status of a metric without a sparse kernel gives the reason.
        loaded: the model.
        spec: how many tokens are read and generated.
        pattern: the pattern that the model was pruned to; None for the dense one.
        log: records the time.
    """
    names = speeds_of(spec.prompt_tokens, spec.new_tokens)
    dense, sparse = names[:2], names[2:]
    if loaded.placement.weights == "onload":
        _no_speed(measured, dense if pattern is None else names, ONLOADED)
        return
    with log.timed("speed"):
        speed = measure_speed(loaded.model, spec)
    _add_rates(measured, dense, speed)
    if pattern is None:
        return
    why = why_no_kernel(loaded.model, pattern)
    if why is None:
        try:
            with log.timed("speed, sparse kernels"), sparse_products(loaded.model):
                speed = measure_speed(loaded.model, spec)
        except KernelError as error:
            why = str(error)
    if why is not None:
        _no_speed(measured, sparse, why)
    else:
        _add_rates(measured, sparse, speed)


def _add_rates(measured: Measured, names: Sequence[tuple[str, str]], speed: Speed) -> None:
    """Adds prefill and generation under the metric names and protocols in `names`."""
    for (name, protocol), values in zip(names, (speed.prefill, speed.generation), strict=True):
        measured.add(name, protocol, _rate(values), "higher")


def _no_speed(measured: Measured, names: Sequence[tuple[str, str]], why: str) -> None:
    measured.metrics += [
        Metric(name=name, protocol=protocol, value=None, direction="higher", status=why)
        for name, protocol in names
    ]


def _rate(repeats: Sequence[float]) -> Estimate:
    """Returns mean and standard error of a few repeats; their interval would extend below zero."""
    return replace(mean_stderr(repeats), low=None, high=None)


__all__ = ["add_size", "add_speed"]
