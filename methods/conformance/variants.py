"""The built-in methods with the settings under which their contract is tested."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from methods.conformance.cases import Variant, any_pattern
from methods.registry import build

_GRANULARITIES = ("output", "input", "layer", "block")

_SETTINGS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("magnitude", {}),
    ("wanda", {}),
    ("ria", {}),
    ("ria", {"group": "output", "activation_power": 1.0}),
    ("wanda-rgs", {}),
    ("wanda-rgs", {"gradient_scale": 0.0}),
    ("sparsegpt", {}),
    ("sparsegpt", {"block_size": 48}),
    ("dsnot", {}),
    ("dsnot", {"initial": "magnitude", "blocks": "all"}),
    ("dsnot", {"initial": "sparsegpt", "blocks": "all", "same_sign": True}),
    ("dsnot", {"initial": "ria", "blocks": "mlp", "variance_power": 0.0, "update_threshold": 0.0}),
    ("dsnot", {"initial": "llm-barber"}),
    *(
        ("llm-barber", {"initial": initial, "granularity": granularity, "rebuild_ratio": 0.3})
        for initial, granularity in product(("magnitude", "wanda", "sparsegpt"), _GRANULARITIES)
    ),
    ("llm-barber", {"initial": "ria", "granularity": "layer", "rebuild_ratio": 0.3}),
    ("llm-barber", {"initial": "dsnot", "rebuild_ratio": 0.3}),
    ("llm-barber", {"initial": "sparsegpt", "rebuild_ratio": 0.3, "keep_reconstruction": True}),
    ("llm-barber", {"score": "weight", "rebuild_ratio": 0.3}),
    ("llm-barber", {"score": "gradient", "rebuild_ratio": 0.3}),
    ("llm-barber", {"rebuild_ratio": 0.3, "nm_guard": False}),
    ("llm-barber", {"rebuild_ratio": 0.0}),
    ("llm-barber", {"rebuild_ratio": 1.0, "granularity": "layer"}),
    ("admm", {}),
    ("admm", {"schedule": "released"}),
    ("alps", {}),
    ("recipe", {}),
)

_RECIPES = (
    "magnitude | swaps | dsnot(blocks=all) | llm-barber(rebuild_ratio=0.3) | refit",
    "wanda | llm-barber(rebuild_ratio=0.3) | dsnot(blocks=all) | swaps | admm-update",
    "ria | swaps | dsnot(blocks=all) | llm-barber(rebuild_ratio=0.3) | sparsegpt-update",
    "sparsegpt | swaps | dsnot(blocks=all) | llm-barber(rebuild_ratio=0.3) | refit",
    "admm | swaps | dsnot(blocks=all) | llm-barber(rebuild_ratio=0.3) | refit",
    "alps | swaps | dsnot(blocks=all) | llm-barber(rebuild_ratio=0.3) | refit",
    "wanda-rgs | swaps | dsnot(blocks=all) | llm-barber(rebuild_ratio=0.3) | refit",
    "wanda-rgs | admm-update",
    "wanda-rgs | sparsegpt-update",
    "magnitude | admm-update",
    "magnitude | sparsegpt-update",
    "wanda | refit",
    "wanda | sparsegpt-update",
    "ria | refit",
    "ria | admm-update",
    "sparsegpt | admm-update",
    "sparsegpt | sparsegpt-update",
    "admm | admm-update",
    "admm | sparsegpt-update",
    "alps | admm-update",
    "alps | sparsegpt-update",
    "magnitude | llm-barber(rebuild_ratio=0.3)",
    "sparsegpt | dsnot",
    "alps | dsnot(blocks=all)",
)
"""Recipes that together contain every pair of consecutive steps, and end with each kind of step."""


def built_in_variants() -> list[Variant]:
    """Returns the built-in methods, once for every setting that changes how they choose weights."""
    return [_variant(name, settings) for name, settings in _SETTINGS]


def recipe_variants() -> list[Variant]:
    """Returns recipes that together contain every pair of consecutive built-in steps."""
    return [Variant(build("recipe", {"recipe": recipe}), recipe, any_pattern) for recipe in _RECIPES]


def _variant(name: str, settings: Mapping[str, object]) -> Variant:
    method = build(name, settings)
    inside = ",".join(f"{key}={value}" for key, value in settings.items())
    by_rows = getattr(method, "granularity", "output") == "output"
    return Variant(method, f"{name}[{inside}]" if inside else name, any_pattern if by_rows else _unstructured)


def _unstructured(pattern: str) -> bool:
    """Whether a pattern is unstructured: LLM-Barber supports N:M only with granularity `output`."""
    return ":" not in pattern


__all__ = ["built_in_variants", "recipe_variants"]
