"""What a prune says of one target module."""

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
"""Field of a report -> the warning that stands in for its value."""


@dataclass(frozen=True)
class LayerReport:
    """What happened to one target module.

    A number that is given as NaN or infinite is left out, and a warning says so: no record can hold it, and
    the prune is good all the same.

    Attributes:
        module: its dotted name, with the index of an expert.
        layer: index of its decoder layer.
        block: `attention` or `mlp`.
        shape: of its weight, `[out, in]`.
        n_pruned: weights removed.
        error_before: relative squared error of the block's output against the dense block's, on the
            probe (the first calibration batch), under the initial mask; None where nothing is rebuilt, and
            where it has no finite value.
        error_after: the same under the final mask; None where the method runs no calibration, and where it
            has no finite value.
        damping: what was added to the Hessian's diagonal, relative to its mean; None without a Hessian.
        swaps: pairs swapped by a rebuild: so many weights came back, and as many went; None where nothing
            is rebuilt.
        n_tokens: calibration tokens it was judged on, which differ between experts; None where the method
            runs no calibration.
        warnings: outcomes a reader should know of, one sentence each.
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
        """Leaves out what is not finite."""
        for name, warning in NOT_FINITE.items():
            value = getattr(self, name)
            if isinstance(value, float) and not isfinite(value):
                object.__setattr__(self, name, None)
                object.__setattr__(self, "warnings", (*self.warnings, warning))

    @property
    def n_weights(self) -> int:
        """Weights in the module."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def sparsity(self) -> float:
        """Share of pruned weights."""
        return self.n_pruned / self.n_weights


__all__ = ["NOT_FINITE", "LayerReport"]
