"""The pass that Wanda, SparseGPT and their like have in common.

Layer by layer: gather a statistic of every target's inputs with the layer still dense, on the stream made by
the layers already pruned; solve each target by itself; move the stream on through the pruned layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from methods.base import CalibrationSet, KeepMask, LayerReport, PhaseClock, Placement, PruneResult
from methods.decoder import DecoderLayer, read_decoder
from methods.pattern import SparsityPattern, require_finite
from methods.statistics import InputStatistic, SharedInputs
from methods.stream import LayerStream, at_rest, relative_error

if TYPE_CHECKING:
    from transformers import PreTrainedModel

S = TypeVar("S", bound=InputStatistic)


@dataclass(frozen=True)
class Solution:
    """What a solver decided for one target module.

    Attributes:
        keep: bool `[out, in]`.
        weight: fp32 `[out, in]`, zero where pruned; None = survivors keep their values.
        damping: added to the Hessian's diagonal, relative to its mean.
        warnings: what a reader should know of.
    """

    keep: Tensor
    weight: Tensor | None = None
    damping: float | None = None
    warnings: tuple[str, ...] = ()


Solver = Callable[[str, Tensor, S, SparsityPattern], Solution]
"""(module name, weight `[out, in]` in fp32, statistic of its inputs, pattern) -> solution."""


def prune_layer_by_layer(
    model: PreTrainedModel,
    pattern: SparsityPattern,
    calibration: CalibrationSet,
    *,
    statistic: Callable[[nn.Linear], S],
    solve: Solver[S],
    placement: Placement,
    on_layer: Callable[[LayerReport], None],
) -> PruneResult:
    """Prunes every target of `model` in place, in the order of the layers.

    Args:
        model: the model.
        pattern: what to remove.
        calibration: what to look at.
        statistic: makes an empty statistic for a Linear.
        solve: decides one target.
        placement: batch size.
        on_layer: called with each target's report.

    Returns:
        Masks, reports and seconds by phase.

    Raises:
        InputError: the pattern does not fit a target.
        PruningError: see `PruningMethod.prune`.
    """
    decoder = read_decoder(model)
    decoder.check_pattern(pattern)
    clock = PhaseClock(device=model.device)
    keep: dict[str, KeepMask] = {}
    reports: list[LayerReport] = []
    with at_rest(model):
        with clock.phase("propagate"):
            stream = LayerStream(model, decoder, calibration, placement)
        for layer in decoder.layers:
            with clock.phase("statistics"):
                gathered, dense_probe = _gather(stream, layer, statistic)
            with clock.phase("solve"):
                solutions = {
                    name: _apply(solve, name, linear, gathered[name], pattern)
                    for name, linear in layer.targets.items()
                }
            with clock.phase("propagate"):
                probe = stream.advance(layer)
            for block, output, dense in zip(layer.blocks, probe, dense_probe, strict=True):
                require_finite(dense, f"{layer.name} ({block.kind})", "its dense outputs")
                error = relative_error(output, dense)
                for name, linear in block.targets.items():
                    mask = KeepMask.pack(solutions[name].keep)
                    keep[f"{name}.weight"] = mask
                    report = LayerReport(
                        module=name,
                        layer=layer.index,
                        block=block.kind,
                        shape=tuple(linear.weight.shape),
                        n_pruned=mask.numel - mask.n_kept,
                        error_after=error,
                        damping=solutions[name].damping,
                        warnings=solutions[name].warnings,
                    )
                    reports.append(report)
                    on_layer(report)
    return PruneResult(keep, tuple(reports), clock.seconds)


def _gather(
    stream: LayerStream, layer: DecoderLayer, statistic: Callable[[nn.Linear], S]
) -> tuple[SharedInputs[S], list[Tensor]]:
    """The statistics of all targets of a layer, and each block's output on the probe."""
    shared = SharedInputs(layer.targets, statistic)
    probe: list[Tensor] = []
    for batch in range(stream.n_batches):
        with shared.collecting():
            if batch == 0:
                probe = [call.output for call in stream.calls_of(layer, batch)[1]]
            else:
                stream.forward(layer, batch)
    return shared, probe


def _apply(
    solve: Solver[S], name: str, linear: nn.Linear, statistic: S, pattern: SparsityPattern
) -> Solution:
    require_finite(statistic.value, name, "the activations it reads")
    require_finite(linear.weight, name, "its weights")
    solution = solve(name, linear.weight.float(), statistic, pattern.for_module(name))
    write_weight(linear, linear.weight if solution.weight is None else solution.weight, solution.keep)
    return solution


def write_weight(linear: nn.Linear, weight: Tensor, keep: Tensor) -> None:
    """Gives `linear` the weights `weight` where `keep` is True, and exact zeros elsewhere."""
    linear.weight.data.copy_(
        torch.where(keep, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))
    )


__all__ = ["Solution", "Solver", "prune_layer_by_layer", "write_weight"]
