"""The report of a prune on one target module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np

NOT_FINITE: Mapping[str, str] = {
    "error_before": (
        "its output error under the initial mask is not finite: outputs of its block, or their squares, "
        "overflow float32, or the dense ones are all 0"
    ),
    "error_after": (
        "its output error is not finite: outputs of its block, or their squares, overflow float32, or the "
        "dense ones are all 0"
    ),
    "damping": "the damping of its Hessian is not finite",
}
"""Field of a report -> the warning that replaces a value that is not finite."""


@dataclass(frozen=True)
class LayerReport:
    """How one target module was pruned.

    A number that is NaN or infinite is replaced by None and a warning, because records cannot contain such
    numbers, and the prune itself is valid.

    Attributes:
        module: dotted name of the module, with the index of an expert.
        layer: index of its decoder layer.
        block: `attention` or `mlp`.
        shape: shape of its weight, `[out, in]`.
        n_pruned: number of weights removed.
        error_before: relative squared error of the block's output against the dense block's, on the first
            calibration batch, under the initial mask; None if nothing is rebuilt, or if it is not finite.
        error_after: the same under the final mask; None if the method runs no calibration, or if it is not
            finite.
        damping: damping added to the Hessian's diagonal, relative to its mean; None without a Hessian.
        swaps: number of pairs swapped by a rebuild, each of a pruned and a kept weight; None if nothing is
            rebuilt.
        n_tokens: number of calibration tokens that the module was judged on, which differs between experts;
            None if the method runs no calibration.
        warnings: outcomes that a reader should know of, one sentence each.
    """

    module: str
    layer: int
    block: str
    shape: tuple[int, ...]
    n_pruned: int
    error_before: float | None = None
    error_after: float | None = None
    damping: float | None = None
    swaps: int | None = None
    n_tokens: int | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Replaces numbers that are not finite by warnings."""
        for name, warning in NOT_FINITE.items():
            value = getattr(self, name)
            if isinstance(value, float) and not isfinite(value):
                object.__setattr__(self, name, None)
                object.__setattr__(self, "warnings", (*self.warnings, warning))

    @property
    def n_weights(self) -> int:
        """Number of weights in the module."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def sparsity(self) -> float:
        """Share of pruned weights."""
        return self.n_pruned / self.n_weights


__all__ = ["NOT_FINITE", "LayerReport"]
