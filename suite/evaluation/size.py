"""Bytes of a checkpoint: as it is stored, and as its masks would allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.masks.pattern import SemiStructured

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.masks.pattern import SparsityPattern


@dataclass(frozen=True)
class PrunedMatrix:
    """What packing one target module's weight depends on.

    Attributes:
        n_weights: all of them.
        n_kept: those that survive.
        itemsize: bytes of one.
    """

    n_weights: int
    n_kept: int
    itemsize: int


@dataclass(frozen=True)
class CheckpointSize:
    """Bytes of all parameters, tied ones once, in the dtype of the model.

    Attributes:
        dense: every weight stored, zeros too.
        bitmask: the survivors of each target module and a bit a weight that says which they are.
        packed: the survivors and, for each, its place inside its group of M in ceil(log2 M) bits, as hardware
            for 2:4 reads them; None unless the pattern is N:M.
    """

    dense: int
    bitmask: int
    packed: int | None


def checkpoint_size(
    model: PreTrainedModel, matrices: Iterable[PrunedMatrix], pattern: SparsityPattern | None
) -> CheckpointSize:
    """The sizes of a pruned model's checkpoint.

    Args:
        model: the model; pruned or not, its shapes are the same.
        matrices: its target modules' weights.
        pattern: what it was pruned to; None where that is not known.
    """
    matrices = list(matrices)
    dense = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    others = dense - sum(m.n_weights * m.itemsize for m in matrices)
    kept = sum(m.n_kept * m.itemsize for m in matrices)
    bitmask = others + kept + sum(-(-m.n_weights // 8) for m in matrices)
    packed = None
    if isinstance(pattern, SemiStructured):
        bits = (pattern.m - 1).bit_length()
        packed = others + kept + sum(-(-m.n_kept * bits // 8) for m in matrices)
    return CheckpointSize(dense, bitmask, packed)


__all__ = ["CheckpointSize", "PrunedMatrix", "checkpoint_size"]
