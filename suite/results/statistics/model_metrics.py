"""Metrics of the model as a whole: what was removed, what that saves, what it took, how fast the model is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from methods.masks.pattern import SemiStructured, parse_pattern
from suite.results.records.prune_costs import ABSENT, prune_costs
from suite.results.records.record import Metric, PhaseCost, SharedPart

SIZES = ("checkpoint_bytes", "bitmask_bytes", "packed_bytes")
"""Of the checkpoint as it is stored, and as its zeros would allow."""
PRUNE_COSTS = (
    *("prune_seconds", "own_prune_seconds"),
    *("peak_host_bytes", "peak_device_bytes", "prune_energy_joules"),
)
"""What a prune took."""
SPEEDS = tuple(
    f"{kernel}{phase}_tokens_per_second" for kernel in ("", "sparse_") for phase in ("prefill", "generation")
)
"""How fast the model is, with the dense kernels and with sparse ones."""
ITEMSIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one weight."""


class PrunedModule(Protocol):
    """What packing the weight of one target module depends on; reports of modules have it."""

    @property
    def n_weights(self) -> int:
        """All of its weights."""
        ...

    @property
    def n_pruned(self) -> int:
        """Those that were removed."""
        ...


def size_metrics(
    checkpoint_bytes: float, modules: Sequence[PrunedModule], *, dtype: str, pattern: str | None
) -> list[Metric]:
    """The bytes of a checkpoint in the model's dtype: as it is stored, and as its zeros would allow.

    `bitmask_bytes`: the survivors of each target module, and a bit per weight that says which they are.
    `packed_bytes`: the survivors and, for each, its place inside its group of M in ceil(log2 M) bits, as
    hardware for 2:4 reads them; only where the pattern is N:M.

    Args:
        checkpoint_bytes: of all parameters, tied ones once, zeros stored.
        modules: the target modules; none for a dense model.
        dtype: of the weights.
        pattern: what they were pruned to; None where nobody knows.
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
    """What a prune took, from a record's phases and what it shared; none where nothing was pruned."""
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
    """Name and protocol of each of `SPEEDS`, where so many tokens are read and written."""
    read = f"b1-p{prompt_tokens}"
    return [(name, read if "prefill" in name else f"{read}-g{new_tokens}") for name in SPEEDS]


def share_pruned(modules: Sequence[PrunedModule]) -> float:
    """The share of the target modules' weights that were removed."""
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
