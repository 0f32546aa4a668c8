"""Interface for following the progress of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from suite.cell import Cell

if TYPE_CHECKING:
    from suite.results.records.record import Record


@runtime_checkable
class Watcher(Protocol):
    """Receives the progress of a plan. Methods that a subclass does not override do nothing."""

    def cell_started(self, cell: Cell) -> None:
        """Called when a cell begins."""

    def phase_started(self, name: str, steps: int | None) -> None:
        """Called when a phase of the current cell begins; `steps` is its number of steps, None if unknown."""

    def stepped(self, steps: int = 1) -> None:
        """Called after `steps` more steps of the current phase are done."""

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """Called when a cell ends, with its outcome and its new record, if any.

        The outcome is `complete`, `failed: why`, or `kept` if an existing record was used.
        """


class Silent:
    """A watcher that does nothing."""

    def cell_started(self, cell: Cell) -> None:
        """Does nothing."""

    def phase_started(self, name: str, steps: int | None) -> None:
        """Does nothing."""

    def stepped(self, steps: int = 1) -> None:
        """Does nothing."""

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """Does nothing."""


__all__ = ["Silent", "Watcher"]
