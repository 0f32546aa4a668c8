"""Builds what prunes a cell: its method, its allocation, and the versions of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from methods.errors import ContractError, InputError
from methods.masks.pattern import SparsityPattern, parse_pattern
from methods.registry import allocations, build, is_recipe, settings_of
from suite.cell import AllocationSpec
from suite.results.records.record import RecipePart

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.allocation import Allocation
    from methods.base import CalibrationSet, Placement, PruningMethod
    from methods.recipe import Recipe
    from suite.cell import Cell


def full_allocation(name: str, settings: Mapping[str, Any], patterns: Iterable[str]) -> AllocationSpec:
    """Returns the spec of an allocation with all its settings, including defaults.

    Raises:
        InputError: there is no such allocation or setting, or it does not support one of the patterns.
    """
    allocation = allocations.build(name, settings)
    for pattern in patterns:
        allocation.check_pattern(parse_pattern(pattern))
    return AllocationSpec(name=name, settings=settings_of(allocation))


RECIPE = "recipe"
"""The name of the method whose setting is a recipe (`methods.recipe`)."""


def pruned_by(
    method: str, settings: Mapping[str, Any], allocation: AllocationSpec | None, patterns: Iterable[str]
) -> tuple[PruningMethod, AllocationSpec | None]:
    """Builds what prunes a cell, from a method's name and settings or from a recipe.

    Args:
        method: a registered method, or a recipe such as `alphapruning | wanda | swaps | refit`.
        settings: settings of the method; the steps of a recipe have theirs in brackets.
        allocation: an allocation given separately from `method`.
        patterns: the patterns to prune to.

    Returns:
        The method, and the allocation given separately or by the recipe.

    Raises:
        InputError: an unknown method, step or setting, an invalid recipe, or both a recipe with an allocation
            and a separate one.
    """
    if not is_recipe(method):
        built = build(method, settings)
        if built.name != RECIPE:
            return built, allocation
        # `--set recipe=...` is another way to give a recipe; a score without steps becomes that method.
        method, settings = settings_of(built)["recipe"], {}
    from methods.recipe import parse_recipe

    recipe = parse_recipe(method)
    if settings:
        raise InputError("write a recipe's settings in its steps, such as 'wanda | refit(steps=20)'")
    if recipe.allocation is not None:
        if allocation is not None:
            raise InputError(
                f"the recipe begins with the allocation {recipe.allocation.name!r}, but the allocation "
                f"{allocation.name!r} is given as well; give only one of them"
            )
        name = recipe.allocation.name
        allocation = full_allocation(name, settings_of(recipe.allocation), patterns)
    return build(recipe.method, recipe.settings), allocation


def needs_calibration(method: PruningMethod, allocation: AllocationSpec | None) -> bool:
    """Whether a method, or the allocation that divides the sparsity for it, uses calibration data."""
    return method.needs_calibration or (
        allocation is not None and allocations.class_of(allocation.name).needs_calibration
    )


def method_of(cell: Cell) -> PruningMethod:
    """Builds the cell's method with its settings."""
    return build(cell.method, cell.settings)


def allocation_of(cell: Cell) -> Allocation | None:
    """Builds the cell's allocation with its settings; None if all target modules get the same pattern."""
    if cell.allocation is None:
        return None
    return allocations.build(cell.allocation.name, cell.allocation.settings)


def pattern_for(
    cell: Cell, model: PreTrainedModel, calibration: CalibrationSet | None, placement: Placement
) -> SparsityPattern:
    """Returns the pattern that the cell prunes the target modules of the dense `model` to.

    Raises:
        InputError: the allocation cannot divide the pattern among the target modules.
        PruningError: as `Allocation.allocate`.
    """
    from methods.structure.decoder import read_decoder

    pattern = parse_pattern(cell.pattern or "")
    allocation = allocation_of(cell)
    if allocation is None:
        return pattern
    allocated = allocation.allocate(model, pattern, calibration, placement=placement)
    for _, _, target in read_decoder(model).targets():
        if target.name not in allocated.of_module:
            raise ContractError(f"allocation {allocation.name!r} gives {target.name} no sparsity")
    return allocated


def initial_methods(method: PruningMethod) -> Iterator[PruningMethod]:
    """Yields the methods that `method` starts from: its initial method, that one's initial method, etc."""
    part = getattr(method, "initial_method", None)
    while part is not None:
        yield part
        part = getattr(part, "initial_method", None)


def solver_memory(cell: Cell) -> tuple[bool, int]:
    """Returns whether the cell's methods gather Gram matrices, and their largest `Step.solver_bytes`."""
    from methods.engine.layerwise import LayerwiseMethod
    from methods.engine.statistics import GramMatrix

    if not cell.prunes:
        return False, 0
    method = method_of(cell)
    methods = [part for part in (method, *initial_methods(method)) if isinstance(part, LayerwiseMethod)]
    used = [step for part in methods for step in part.as_steps()]
    return any(GramMatrix in step.statistics for step in used), max((s.solver_bytes for s in used), default=0)


def parts_of(cell: Cell) -> tuple[RecipePart, ...]:
    """Returns the parts that prune the cell, in order: a method comes after the one whose mask it refines."""
    if not cell.prunes:
        return ()
    from methods.engine.layerwise import Score
    from methods.recipe import Recipe, written

    found: list[RecipePart] = []
    if allocation := allocation_of(cell):
        found.append(RecipePart(role="allocation", text=written(allocation)))
    method = method_of(cell)
    for part in reversed([method, *initial_methods(method)]):
        if isinstance(part, Recipe):
            found += [RecipePart(role=step.part, text=written(step)) for step in part.steps]
        elif isinstance(part, Score):
            found.append(RecipePart(role="score", text=written(part)))
        else:
            role: Literal["second pass", "method"] = (
                "second pass" if hasattr(part, "initial_method") else "method"
            )
            found.append(RecipePart(role=role, text=written(part, but=("initial", "initial_settings"))))
    return tuple(found)


def part_versions(cell: Cell) -> dict[str, int]:
    """Returns the versions of the parts used with the cell's method: initial methods, steps, allocation."""
    if not cell.prunes:
        return {}
    method = method_of(cell)
    versions: dict[str, int] = {}
    for part in (method, *initial_methods(method)):
        if part is not method:
            versions[part.name] = part.version
        if part.name == RECIPE:
            versions |= {step.name: step.version for step in cast("Recipe", part).steps}
    if allocation := allocation_of(cell):
        versions[allocation.name] = allocation.version
    return versions


__all__ = [
    "allocation_of",
    "full_allocation",
    "initial_methods",
    "method_of",
    "needs_calibration",
    "part_versions",
    "parts_of",
    "pattern_for",
    "pruned_by",
    "solver_memory",
]
