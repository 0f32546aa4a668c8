"""The pass that Wanda, SparseGPT and their like have in common.

Layer by layer: gather a statistic of every target's inputs with the layer still dense, on the stream made by
the layers already pruned; solve each target by itself; move the stream on through the pruned layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from methods.base import CalibrationSet, LayerReport, PhaseClock, Placement, PruneResult
from methods.engine.hidden_states import LayerStream, at_rest, relative_error
from methods.engine.statistics import InputStatistic, SharedInputs
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import SparsityPattern, UniformPattern
from methods.masks.selection import require_finite
from methods.placement.layer_loading import residing
from methods.structure.decoder import DecoderLayer, read_decoder
from methods.structure.target import Target

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
        swaps: pairs swapped against an initial mask.
        standing: the report of the method whose mask this is, where it was not judged here: on how many
            tokens it was, and its warnings, are reported in place of this pass's.
        warnings: what a reader should know of.
    """

    keep: Tensor
    weight: Tensor | None = None
    damping: float | None = None
    swaps: int | None = None
    standing: LayerReport | None = None
    warnings: tuple[str, ...] = ()


Solver = Callable[[str, Tensor, S, UniformPattern], Solution]
"""(target name, weight `[out, in]` in fp32, statistic of its inputs, pattern) -> solution."""


def prune_layer_by_layer(
    model: PreTrainedModel,
    pattern: SparsityPattern,
    calibration: CalibrationSet,
    *,
    statistic: Callable[[Target], S],
    solve: Solver[S],
    placement: Placement,
    on_layer: Callable[[LayerReport], None],
    unreached: Callable[[str], Solution] | None = None,
) -> PruneResult:
    """Prunes every target of `model` in place, in the order of the layers.

    Args:
        model: the model.
        pattern: what to remove.
        calibration: what to look at.
        statistic: makes an empty statistic for a target.
        solve: decides one target.
        placement: batch size.
        on_layer: called with each target's report.
        unreached: decides an expert, by its name, that no token reached; without it `solve` does, with the
            statistic of every input active once.

    Returns:
        Masks, reports and seconds by phase.

    Raises:
        InputError: the pattern does not fit a target.
        PruningError: see `PruningMethod.prune`.
    """
    decoder = read_decoder(model)
    decoder.check_pattern(pattern)
    keep: dict[str, KeepMask] = {}
    reports: list[LayerReport] = []
    with at_rest(model), residing(model, decoder, placement) as residence:
        clock = PhaseClock(device=residence.device)
        with clock.phase("propagate"):
            stream = LayerStream.of_calibration(model, decoder, calibration, residence)
        for layer in decoder.layers:
            # A layer's statistics and solutions are as large as itself or larger: they end with the call.
            with residence.visiting(layer):
                of_layer = _prune_layer(stream, layer, pattern, statistic, solve, unreached, clock)
            for mask_name, mask, report in of_layer:
                keep[mask_name] = mask
                reports.append(report)
                on_layer(report)
    return PruneResult(keep, tuple(reports), clock.seconds)


def _prune_layer(
    stream: LayerStream,
    layer: DecoderLayer,
    pattern: SparsityPattern,
    statistic: Callable[[Target], S],
    solve: Solver[S],
    unreached: Callable[[str], Solution] | None,
    clock: PhaseClock,
) -> list[tuple[str, KeepMask, LayerReport]]:
    """Prunes one layer and moves the stream on; gives mask name, mask and report of each target."""
    with clock.phase("statistics"):
        gathered, dense_probe = stream.within_memory(partial(_gather, stream, layer, statistic))
    with clock.phase("solve"):
        solutions = {
            name: _apply(solve, target, gathered, pattern, unreached)
            for name, target in layer.targets.items()
        }
    with clock.phase("propagate"):
        probe = stream.advance(layer)
    said = stream.take_warnings()
    pruned = []
    for block, output, dense in zip(layer.blocks, probe, dense_probe, strict=True):
        require_finite(dense, f"{layer.name} ({block.kind})", "its dense outputs")
        error = relative_error(output, dense)
        for name, target in block.targets.items():
            solution = solutions[name]
            mask = target.pack(solution.keep)
            report = LayerReport(
                module=name,
                layer=layer.index,
                block=block.kind,
                shape=target.shape,
                n_pruned=mask.numel - mask.n_kept,
                error_after=error,
                damping=solution.damping,
                swaps=solution.swaps,
                n_tokens=solution.standing.n_tokens if solution.standing else gathered.n_tokens(name),
                warnings=(*solution.warnings, *said),
            )
            pruned.append((target.mask_name, mask, report))
            said = ()
    return pruned


def _gather(
    stream: LayerStream, layer: DecoderLayer, statistic: Callable[[Target], S]
) -> tuple[SharedInputs[S], list[Tensor]]:
    """The statistics of all targets of a layer, and each block's output on the probe.

    After the probe no forward goes further than the last input it is run for: a quarter to a third of an MLP
    is left out.
    """
    shared = SharedInputs(layer.targets, statistic)
    probe: list[Tensor] = []
    for batch in range(stream.n_batches):
        last = shared.last
        with shared.collecting():
            if batch == 0:
                probe = [call.output for call in stream.calls_of(layer, batch)[1]]
            elif last is None:
                stream.forward(layer, batch)
            else:
                stream.forward_up_to(layer, batch, last.module)
    return shared, probe


def _apply(
    solve: Solver[S],
    target: Target,
    gathered: SharedInputs[S],
    pattern: SparsityPattern,
    unreached: Callable[[str], Solution] | None,
) -> Solution:
    name = target.name
    n_tokens = gathered.n_tokens(name)
    statistic = gathered.judged(target)
    require_finite(statistic.value, name, "the activations it reads, or their squares,")
    require_finite(target.weight, name, "its weights")
    if n_tokens == 0 and unreached is not None:
        solution = unreached(name)
    else:
        solution = solve(name, target.weight.float().contiguous(), statistic, pattern.for_module(name))
    target.write(target.weight if solution.weight is None else solution.weight, solution.keep)
    if solution.weight is not None:
        require_finite(target.weight, name, f"its new weights in {target.weight.dtype}")
    of_judge = solution.standing.warnings if solution.standing else expert_warnings(target, n_tokens)
    return replace(solution, warnings=(*of_judge, *solution.warnings))


def expert_warnings(target: Target, n_tokens: int) -> tuple[str, ...]:
    """What to say of an expert that saw too few tokens to be judged: fewer than it has inputs."""
    if target.expert is None or n_tokens >= target.n_inputs:
        return ()
    if n_tokens == 0:
        return ("no calibration token was routed to it: judged as if every input were equally active",)
    return (f"judged on {n_tokens} tokens routed to it, fewer than its {target.n_inputs} inputs",)


__all__ = ["Solution", "Solver", "expert_warnings", "prune_layer_by_layer"]
