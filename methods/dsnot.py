"""DSnoT from a finished mask: swaps pruned for kept weights in a separate pass (arXiv 2310.08915)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from methods.base import (
    CalibrationSet,
    LayerReport,
    Placement,
    PruneResult,
    PruningMethod,
    ignore_layer,
    with_calibration,
)
from methods.engine.layerwise import prune_by_steps
from methods.initial import GivenMask, initial_mask, initial_settings
from methods.masks.pattern import SparsityPattern, UniformPattern
from methods.placement.layer_loading import residing
from methods.refinements.dsnot_swaps import DSnoTSwaps
from methods.registry import build
from methods.structure.decoder import read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class DSnoT:
    """Refines the mask of any other method without training: dynamic sparse, no training.

    First the initial method prunes the whole model. Then the dense weights are restored, and layer by layer,
    on the hidden states from the layers already refined, each row swaps weights one by one (`refine`).
    Survivors have their dense values: weights that an initial method reconstructed (SparseGPT) are discarded.
    In the authors' code the initial mask of a layer is found in the same pass, on the refined hidden states;
    here it comes from a complete run of the initial method, so that any method can be used.

    Attributes:
        initial: the method whose mask is refined.
        blocks: blocks whose targets are refined; other targets keep the initial mask. The authors skip the
            MLP.
        max_cycles: maximum number of swaps per row.
        update_threshold: a row is done once its error is at most this; in units of the output, summed over
            the tokens of a sample.
        variance_power: exponent of an input's variance in the order in which weights come back, in [0, 6];
            0 ignores the variance.
        same_sign: a swap that would change the sign of a row's error is not made and ends that row. Always
            on with N:M.
        initial_settings: hyper-parameters of the initial method.
    """

    initial: str = "wanda"
    blocks: Literal["attention", "mlp", "all"] = "attention"
    max_cycles: int = 50
    update_threshold: float = 0.1
    variance_power: float = 1.0
    same_sign: bool = False
    initial_settings: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "dsnot"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = True
    reconstructs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _ = self.swaps  # checks the settings
        in_full = initial_settings(self.name, self.initial, self.initial_settings)
        object.__setattr__(self, "initial_settings", in_full)

    @property
    def initial_method(self) -> PruningMethod:
        """The method whose mask is refined, with its settings."""
        return build(self.initial, self.initial_settings)

    @property
    def swaps(self) -> DSnoTSwaps:
        """The refinement step, which a recipe applies to a mask found in the same pass."""
        return DSnoTSwaps(
            self.blocks, self.max_cycles, self.update_threshold, self.variance_power, self.same_sign
        )

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """One output row, which keeps as many weights as under the initial mask.

        Raises:
            InputError: the initial method does not support `pattern`.
        """
        self.initial_method.comparison_group(shape, pattern)
        return self.swaps.comparison_group(shape, pattern)

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
        with torch.no_grad(), residing(model, decoder, placement) as residence:
            residence.remember_dense()
            first = initial_mask(self.initial_method, model, pattern, calibration, placement, weights=False)
            residence.restore_dense()
        steps = [GivenMask(first), self.swaps]
        result = prune_by_steps(
            self.name, steps, model, pattern, calibration, placement=placement, on_layer=on_layer
        )
        phases = first.with_seconds(result.phases)
        return PruneResult(result.keep, result.layers, phases, initial=first.result)


__all__ = ["DSnoT"]
