"""ATP: sparsity rises from the first decoder layer to the last in equal steps (arXiv 2502.14770)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, ClassVar

from methods.allocations.layer_allocation import DECIMALS, LayerAllocation, layer_sizes
from methods.base import CalibrationSet
from methods.errors import InputError
from methods.placement.layer_loading import Residence
from methods.structure.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ATP(LayerAllocation):
    """Early layers are pruned less, because their errors pass through all later ones.

    The paper's common difference is beta = 2 * max_deviation / (layers - 1); its authors choose it by a grid
    search on perplexity. Neither weights nor calibration data are looked at, so it is also the baseline that
    allocations which do look at them have to beat.

    Attributes:
        max_deviation: half the difference between the last layer's sparsity and the first one's, at least 0.
    """

    max_deviation: float = 0.1

    name: ClassVar[str] = "atp"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_deviation < inf:
            raise InputError(
                f"allocation 'atp': max_deviation must be at least 0, not {self.max_deviation:g}"
            )

    def sparsities(
        self,
        model: PreTrainedModel,
        decoder: Decoder,
        residence: Residence,
        sparsity: Fraction,
        calibration: CalibrationSet | None,
    ) -> Sequence[Fraction]:
        """See `LayerAllocation.sparsities`."""
        return rising_sparsities(layer_sizes(decoder), sparsity, self.max_deviation)


def rising_sparsities(sizes: Sequence[int], sparsity: Fraction, max_deviation: float) -> list[Fraction]:
    """Each layer's sparsity: s - beta (L - 1) / 2 + beta i for layer i = 0 ... L - 1.

    Where layers differ in size, all are shifted alike so that the whole model has `sparsity`.

    Args:
        sizes: target weights per layer.
        sparsity: s, of all of them together.
        max_deviation: beta (L - 1) / 2, taken as the decimal it is written as.

    Returns:
        One sparsity per layer to `DECIMALS` decimals, which may lie outside [0, 1).
    """
    if len(sizes) == 1:
        return [sparsity]
    reach = Fraction(repr(max_deviation))
    deviations = [reach * Fraction(2 * i - (len(sizes) - 1), len(sizes) - 1) for i in range(len(sizes))]
    mean = sum((d * size for d, size in zip(deviations, sizes, strict=True)), Fraction()) / sum(sizes)
    return [round(sparsity + deviation - mean, DECIMALS) for deviation in deviations]


__all__ = ["ATP", "rising_sparsities"]
