"""Metrics of the whole model: sparsity, sizes, cost of the prune, and speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from methods.masks.pattern import SemiStructured, parse_pattern
from suite.results.records.prune_costs import ABSENT, prune_costs
from suite.results.records.record import Metric, PhaseCost, SharedPart

SIZES = ("checkpoint_bytes", "bitmask_bytes", "packed_bytes")
"""Sizes of the checkpoint as it is stored, and in packed formats that its zeros allow."""
PRUNE_COSTS = (
    *("prune_seconds", "own_prune_seconds"),
    *("peak_host_bytes", "peak_device_bytes", "prune_energy_joules"),
)
"""Costs of a prune."""
SPEEDS = tuple(
    f"{kernel}{phase}_tokens_per_second" for kernel in ("", "sparse_") for phase in ("prefill", "generation")
)
"""Speeds of the model with dense and with sparse kernels."""
ITEMSIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Size of one weight in bytes, by dtype."""


class PrunedModule(Protocol):
    """Interface of module reports: the numbers that determine the packed size of a target module."""

    @property
    def n_weights(self) -> int:
        """Number of weights of the module."""
        ...

    @property
    def n_pruned(self) -> int:
        """Number of pruned weights."""
        ...


def size_metrics(
    checkpoint_bytes: float, modules: Sequence[PrunedModule], *, dtype: str, pattern: str | None
) -> list[Metric]:
    """Computes the size of a checkpoint in the model's dtype: as it is stored, and in packed formats.

    `bitmask_bytes`: the remaining weights of each target module, and a mask of one bit per weight.
    `packed_bytes`: the remaining weights, each with its index inside its group of M in ceil(log2 M) bits, as
    hardware for 2:4 reads them; it only has a value if the pattern is N:M.

    Args:
        checkpoint_bytes: size of all parameters including zeros, with tied parameters counted once.
        modules: the target modules; empty for a dense model.
        dtype: dtype of the weights.
        pattern: the sparsity pattern; None if unknown.
    """
    sizes: dict[str, tuple[float | None, str]] = {"checkpoint_bytes": (checkpoint_bytes, "ok")}
    if modules:
        saved = checkpoint_bytes - sum(module.n_pruned for module in modules) * ITEMSIZES[dtype]
        bitmask = saved + sum(-(-module.n_weights // 8) for module in modules)
        sizes["bitmask_bytes"] = (bitmask, "ok")
        sizes["packed_bytes"] = (None, "no N:M pattern")
        parsed = None if pattern is None else parse_pattern(pattern)
        if isinstance(parsed, SemiStructured):
            bits = (parsed.m - 1).bit_length()
            kept = (module.n_weights - module.n_pruned for module in modules)
            sizes["packed_bytes"] = (saved + sum(-(-n * bits // 8) for n in kept), "ok")
    return [
        Metric(name=name, protocol=dtype, value=value, direction="lower", status=status)
        for name, (value, status) in sizes.items()
    ]


def cost_metrics(phases: Sequence[PhaseCost], shared: Sequence[SharedPart]) -> list[Metric]:
    """Computes the cost metrics of a prune from phases and shared work; empty if nothing was pruned."""
    return [
        Metric(
            name=name,
            protocol="",
            value=value,
            direction="lower",
            status=ABSENT.get(name, "") if value is None else "ok",
        )
        for name, value in prune_costs(phases, shared).items()
    ]


def speeds_of(prompt_tokens: int, new_tokens: int) -> list[tuple[str, str]]:
    """Returns name and protocol of each of `SPEEDS` for the given numbers of tokens."""
    read = f"b1-p{prompt_tokens}"
    return [(name, read if "prefill" in name else f"{read}-g{new_tokens}") for name in SPEEDS]


def share_pruned(modules: Sequence[PrunedModule]) -> float:
    """Returns the share of the target modules' weights that were pruned."""
    return sum(module.n_pruned for module in modules) / sum(module.n_weights for module in modules)


__all__ = [
    "ITEMSIZES",
    "PRUNE_COSTS",
    "SIZES",
    "SPEEDS",
    "PrunedModule",
    "cost_metrics",
    "share_pruned",
    "size_metrics",
    "speeds_of",
]
