"""The common base of allocations that give every decoder layer one sparsity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, ClassVar

from methods.base import CalibrationSet, Placement
from methods.engine.hidden_states import at_rest
from methods.errors import InputError
from methods.masks.pattern import Allocated, UniformPattern, Unstructured
from methods.placement.layer_loading import Residence, residing
from methods.structure.decoder import Decoder, read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DECIMALS = 6
"""Decimals to which allocated sparsities are rounded, so that they can be written down exactly."""


class LayerAllocation(ABC):
    """Gives all targets of a decoder layer the same sparsity."""

    name: ClassVar[str]
    needs_calibration: ClassVar[bool]
    max_deviation: float

    @abstractmethod
    def sparsities(
        self,
        model: PreTrainedModel,
        decoder: Decoder,
        residence: Residence,
        sparsity: Fraction,
        calibration: CalibrationSet | None,
    ) -> Sequence[Fraction]:
        """Returns one sparsity per layer, so that the model as a whole has `sparsity`.

        Some may be outside [0, 1); `allocate` refuses these.
        """

    def check_pattern(self, pattern: UniformPattern) -> None:
        """See `Allocation.check_pattern`."""
        if not isinstance(pattern, Unstructured):
            raise InputError(
                f"allocation {self.name!r} spreads an unstructured sparsity such as 0.5, not {pattern}"
            )

    def allocate(
        self,
        model: PreTrainedModel,
        pattern: UniformPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
    ) -> Allocated:
        """See `Allocation.allocate`."""
        self.check_pattern(pattern)
        assert isinstance(pattern, Unstructured)
        if self.needs_calibration and calibration is None:
            raise InputError(f"allocation {self.name!r} needs calibration data: give --calibration")
        decoder = read_decoder(model)
        with at_rest(model), residing(model, decoder, placement) as residence:
            spread = self.sparsities(model, decoder, residence, pattern.sparsity, calibration)
        of_module: dict[str, Unstructured] = {}
        for layer, sparsity in zip(decoder.layers, spread, strict=True):
            if not 0 <= sparsity < 1:
                raise InputError(
                    f"allocation {self.name!r}: {layer.name} would get sparsity {float(sparsity):g}, outside "
                    f"[0, 1); lower max_deviation ({self.max_deviation:g}) or take another sparsity than "
                    f"{pattern}"
                )
            of_module |= dict.fromkeys(layer.targets, Unstructured(sparsity))
        return Allocated(pattern, of_module)


def layer_sizes(decoder: Decoder) -> list[int]:
    """Returns the number of target weights of each layer."""
    return [sum(prod(target.shape) for target in layer.targets.values()) for layer in decoder.layers]


__all__ = ["DECIMALS", "LayerAllocation", "layer_sizes"]
