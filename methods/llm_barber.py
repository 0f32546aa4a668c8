"""LLM-Barber: rebuilds an initial mask, block by block, by weight times gradient (arXiv 2408.10631)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from methods.base import (
    CalibrationSet,
    LayerReport,
    PhaseClock,
    Placement,
    PruneResult,
    PruningMethod,
    ignore_layer,
    with_calibration,
)
from methods.engine.hidden_states import LayerStream, at_rest, relative_error
from methods.engine.steps import UNREACHED, PrunedBlock, RefinedBlock, expert_warnings
from methods.initial import InitialMask, initial_mask, initial_settings
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import SparsityPattern, UniformPattern
from methods.placement.layer_loading import residing
from methods.refinements.barber_swaps import BarberRebuild, Granularity, RebuildScore
from methods.registry import build
from methods.structure.decoder import Block, DecoderLayer, read_decoder
from methods.structure.target import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LLMBarber:
    """Rebuilds the mask of any other method.

    Attributes:
        initial: the method whose mask is rebuilt.
        granularity: the set within which pruned and kept weights compete: `layer` (one Linear), `output` (a
            row), `input` (a column), `block` (all Linears of one block).
        rebuild_ratio: share of the profitable swaps that are made, in [0, 1].
        score: the score that ranks weights; the last two options are the paper's ablations.
        keep_reconstruction: whether survivors of the initial method keep the values that it computed
            (SparseGPT); the authors go back to the dense values.
        nm_guard: with N:M, a weight that comes back must score higher than the one that it replaces; the
            authors' code does not require this (False).
        initial_settings: hyper-parameters of the initial method.
    """

    initial: str = "wanda"
    granularity: Granularity = "output"
    rebuild_ratio: float = 0.01
    score: RebuildScore = "weight_gradient"
    keep_reconstruction: bool = False
    nm_guard: bool = True
    initial_settings: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "llm-barber"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ = self.rebuild  # checks the settings
        in_full = initial_settings(self.name, self.initial, self.initial_settings)
        object.__setattr__(self, "initial_settings", in_full)

    @property
    def initial_method(self) -> PruningMethod:
        """The method whose mask is rebuilt, with its settings."""
        return build(self.initial, self.initial_settings)

    @property
    def rebuild(self) -> BarberRebuild:
        """The rebuild step, which a recipe applies to a mask found in the same pass."""
        return BarberRebuild(self.granularity, self.rebuild_ratio, self.score, self.nm_guard)

    @property
    def reconstructs(self) -> bool:
        """Whether it keeps weights that the initial method reconstructed."""
        return self.keep_reconstruction and self.initial_method.reconstructs

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """Depends on `granularity`; see `BarberRebuild.comparison_group`."""
        return self.rebuild.comparison_group(shape, pattern)

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`."""
        calibration = with_calibration(self.name, calibration)
        decoder = read_decoder(model)
        decoder.check_pattern(pattern)
        for _, _, target in decoder.targets():
            self.comparison_group(target.shape, pattern.for_module(target.name))
        keep: dict[str, KeepMask] = {}
        reports: list[LayerReport] = []
        with at_rest(model), residing(model, decoder, placement) as residence:
            clock = PhaseClock(device=residence.device)
            residence.remember_dense()
            first = initial_mask(self.initial_method, model, pattern, calibration, placement)
            with clock.phase("propagate"):
                stream = LayerStream.of_calibration(model, decoder, calibration, residence)
            for layer in decoder.layers:
                with residence.loaded(layer):
                    dense = residence.dense_weights(layer)
                    rebuilt = [
                        self._rebuild_block(stream, layer, block, pattern, dense, first, clock)
                        for block in layer.blocks
                    ]
                    with clock.phase("propagate"):
                        probe = stream.advance(layer)
                stream_warnings = stream.take_warnings()
                for block, outcome, output in zip(layer.blocks, rebuilt, probe, strict=True):
                    error_after = relative_error(output, outcome.block.dense_probe)
                    for name, target in block.targets.items():
                        keep[target.mask_name] = outcome.masks[name]
                        report = outcome.report(target, first, error_after, stream_warnings)
                        stream_warnings = ()
                        reports.append(report)
                        on_layer(report)
        return PruneResult(keep, tuple(reports), first.with_seconds(clock.seconds), initial=first.result)

    def _rebuild_block(
        self,
        stream: LayerStream,
        layer: DecoderLayer,
        block: Block,
        pattern: SparsityPattern,
        dense: Mapping[str, Tensor],
        first: InitialMask,
        clock: PhaseClock,
    ) -> _Rebuilt:
        """Rebuilds the masks of one block and writes the final weights of its targets."""
        with clock.phase("solve"):
            initial_keep = {name: first.keep(target) for name, target in block.targets.items()}
            # The value of every weight if it survives.
            full = {
                name: torch.where(initial_keep[name], target.weight, dense[name])
                if self.keep_reconstruction
                else dense[name]
                for name, target in block.targets.items()
            }
        patterns = {name: pattern.for_module(name) for name in block.targets}
        refined = self.rebuild.refine_block(
            PrunedBlock(stream, layer, block, patterns, dense, full, initial_keep, clock)
        )
        with clock.phase("solve"):
            for name, target in block.targets.items():
                target.write(full[name], refined.keep[name])
            return _Rebuilt(
                masks={name: target.pack(refined.keep[name]) for name, target in block.targets.items()},
                swaps={name: int((mask & ~initial_keep[name]).sum()) for name, mask in refined.keep.items()},
                block=refined,
            )


@dataclass(frozen=True)
class _Rebuilt:
    """The result of rebuilding one block.

    Attributes:
        masks: target name -> final mask.
        swaps: target name -> number of its weights that came back.
        block: the result of the rebuild step.
    """

    masks: Mapping[str, KeepMask]
    swaps: Mapping[str, int]
    block: RefinedBlock

    def report(
        self, target: Target, first: InitialMask, error_after: float | None, stream_warnings: tuple[str, ...]
    ) -> LayerReport:
        """Returns the report of one target, based on the report of the initial method."""
        before, mask = first.report(target), self.masks[target.name]
        n_tokens = self.block.n_tokens.get(target.name)
        if n_tokens:
            warnings = (*first.warnings(target), *expert_warnings(target, n_tokens))
        else:
            # The target was not judged in this pass: no token reached it, or the score reads none.
            warnings = (*before.warnings, *(() if n_tokens is None else (UNREACHED,)))
        return replace(
            before,
            n_pruned=mask.numel - mask.n_kept,
            error_before=self.block.error_before,
            error_after=error_after,
            swaps=self.swaps[target.name],
            n_tokens=n_tokens or before.n_tokens,
            warnings=(*warnings, *stream_warnings),
        )


__all__ = ["LLMBarber"]
