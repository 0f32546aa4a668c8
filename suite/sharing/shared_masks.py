"""Finds the initial masks from which several cells of a plan start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from methods.registry import settings_of
from suite.planning.method_of_cell import initial_methods, method_of, needs_calibration

if TYPE_CHECKING:
    from methods.base import PruningMethod
    from suite.cell import Cell


def wanted_initials(cells: Sequence[Cell]) -> frozenset[str]:
    """Returns the digests (`initial_cell`) of the prunes that are worth storing for other cells.

    Args:
        cells: the cells that will run.
    """
    starts, full = Counter[str](), set[str]()
    for cell in cells:
        if cell.prunes:
            method = method_of(cell)
            full.add(initial_cell(cell, method).digest)
            starts.update(initial_cell(cell, part).digest for part in initial_methods(method))
    return frozenset(digest for digest, n in starts.items() if n > 1 or digest in full)


def initial_cell(cell: Cell, method: PruningMethod) -> Cell:
    """Returns a cell that prunes like `cell` but with `method`, and measures nothing.

    It is equal for all cells of a plan that start from the same mask.
    """
    return cell.model_copy(
        update={
            "method": method.name,
            "settings": settings_of(method),
            "calibration": cell.calibration if needs_calibration(method, cell.allocation) else None,
            "perplexity": (),
            "divergence": False,
            "tasks": (),
            "answers": None,
            "speed": None,
        }
    )


__all__ = ["initial_cell", "wanted_initials"]
