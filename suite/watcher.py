"""Who is told how far a run has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from suite.cell import Cell

if TYPE_CHECKING:
    from suite.results.records.record import Record


@runtime_checkable
class Watcher(Protocol):
    """Hears of the progress of a plan. The default is to say nothing."""

    def cell_started(self, cell: Cell) -> None:
        """A cell begins."""

    def phase_started(self, name: str, steps: int | None) -> None:
        """A phase of the current cell begins; `steps` of work lie ahead, if that is known."""

    def stepped(self, steps: int = 1) -> None:
        """Work of the current phase was done."""

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """A cell is over: `complete`, `failed: why`, or `kept`; the record holds what was measured now."""


class Silent:
    """A watcher that tells nobody."""

    def cell_started(self, cell: Cell) -> None:
        """Says nothing."""

    def phase_started(self, name: str, steps: int | None) -> None:
        """Says nothing."""

    def stepped(self, steps: int = 1) -> None:
        """Says nothing."""

    def cell_ended(self, cell: Cell, outcome: str, record: Record | None = None) -> None:
        """Says nothing."""


__all__ = ["Silent", "Watcher"]
