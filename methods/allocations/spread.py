"""One sparsity per decoder layer, as a pattern that names one for every target."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from methods.errors import InputError
from methods.masks.pattern import Allocated, Unstructured
from methods.structure.decoder import Decoder

DECIMALS = 6
"""Of an allocated sparsity: a number that can be written down exactly."""


def spread_over_layers(
    allocation: str, decoder: Decoder, pattern: Unstructured, sparsities: Sequence[Fraction], deviation: str
) -> Allocated:
    """The pattern that gives all targets of a layer the layer's sparsity.

    Args:
        allocation: its name, for the message.
        decoder: of the model.
        pattern: the sparsity of the whole model.
        sparsities: one per layer.
        deviation: the setting, with its value, that a user can lower.

    Raises:
        InputError: a sparsity outside [0, 1).
    """
    of_module: dict[str, Unstructured] = {}
    for layer, sparsity in zip(decoder.layers, sparsities, strict=True):
        if not 0 <= sparsity < 1:
            raise InputError(
                f"allocation {allocation!r}: {layer.name} would get sparsity {float(sparsity):g}, outside "
                f"[0, 1); lower {deviation} or take another sparsity than {pattern}"
            )
        of_module |= dict.fromkeys(layer.targets, Unstructured(sparsity))
    return Allocated(pattern, of_module)


__all__ = ["DECIMALS", "spread_over_layers"]
