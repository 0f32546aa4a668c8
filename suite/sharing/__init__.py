"""What cells of one plan have in common, computed once and found again by what decides it."""

from suite.sharing.shared_masks import initial_cell, wanted_initials
from suite.sharing.work import CellShare, SharedWork

__all__ = ["CellShare", "SharedWork", "initial_cell", "wanted_initials"]
