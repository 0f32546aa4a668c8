"""Work that cells of one plan share: done once, then found again by a digest of everything it depends on."""

from suite.sharing.shared_masks import initial_cell, wanted_initials
from suite.sharing.work import CellShare, SharedWork

__all__ = ["CellShare", "SharedWork", "initial_cell", "wanted_initials"]
