"""From a cell to what prunes it: its method, its allocation, and the versions of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.errors import ContractError
from methods.masks.pattern import SparsityPattern, parse_pattern
from methods.registry import allocations, build
from methods.structure.decoder import read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.allocation import Allocation
    from methods.base import CalibrationSet, Placement, PruningMethod
    from suite.cell import Cell


def method_of(cell: Cell) -> PruningMethod:
    """The cell's method with its settings."""
    return build(cell.method, cell.settings)


def allocation_of(cell: Cell) -> Allocation | None:
    """The cell's allocation with its settings; None where all target modules get the same pattern."""
    if cell.allocation is None:
        return None
    return allocations.build(cell.allocation.name, cell.allocation.settings)


def pattern_for(
    cell: Cell, model: PreTrainedModel, calibration: CalibrationSet | None, placement: Placement
) -> SparsityPattern:
    """What the cell prunes each target module of the dense `model` to.

    Raises:
        InputError: the allocation cannot divide the pattern among them.
        PruningError: as `Allocation.allocate`.
    """
    pattern = parse_pattern(cell.pattern or "")
    allocation = allocation_of(cell)
    if allocation is None:
        return pattern
    allocated = allocation.allocate(model, pattern, calibration, placement=placement)
    for _, _, target in read_decoder(model).targets():
        if target.name not in allocated.of_module:
            raise ContractError(f"allocation {allocation.name!r} gives {target.name} no sparsity")
    return allocated


def part_versions(cell: Cell) -> dict[str, int]:
    """The versions of what the cell's method builds on, by name: initial methods and the allocation."""
    versions: dict[str, int] = {}
    if not cell.prunes:
        return versions
    part = getattr(method_of(cell), "initial_method", None)
    while part is not None:
        versions[part.name] = part.version
        part = getattr(part, "initial_method", None)
    if allocation := allocation_of(cell):
        versions[allocation.name] = allocation.version
    return versions


__all__ = ["allocation_of", "method_of", "part_versions", "pattern_for"]
