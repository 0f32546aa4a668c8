"""Which cell goes to which worker: no processes, no clock, only the order of events."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from suite.cell import Cell
from suite.evaluation.inputs import loaded_key

ATTEMPTS = 3
"""How often a cell is given to a worker before its loss is taken for the cell's fault."""


class CellQueue:
    """Hands out cells so that a worker stays with one model as long as that has cells.

    Cells of one model, dtype and thread count are a group: a worker keeps the model, the dense reference and
    the inputs between them. A worker without cells takes the largest group that nobody has begun, and where
    there is none helps with the one that has most cells left. The dense cell of a group comes first.

    Args:
        cells: all that is to run.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        groups: dict[Hashable, list[int]] = {}
        for place, cell in enumerate(cells):
            groups.setdefault(loaded_key(cell), []).append(place)
        self._cells = cells
        self._of_group = {
            key: deque(sorted(places, key=lambda place: not cells[place].is_dense))
            for key, places in groups.items()
        }
        self._untouched = sorted(groups, key=lambda key: len(groups[key]))
        self._group_of_worker: dict[Hashable, Hashable] = {}
        self._attempts: dict[int, int] = {}
        self._running: set[int] = set()
        self._n_waiting = len(cells)

    @property
    def n_waiting(self) -> int:
        """Cells that no worker has."""
        return self._n_waiting

    @property
    def n_running(self) -> int:
        """Cells that a worker has."""
        return len(self._running)

    def take(self, worker: Hashable) -> int | None:
        """The place of the next cell for an idle worker; None where no cell waits."""
        if not self._n_waiting:
            return None
        own = self._group_of_worker.get(worker)
        waiting = self._of_group[own] if own is not None else None
        if not waiting:
            own = self._next_group()
            self._group_of_worker[worker] = own
            waiting = self._of_group[own]
        place = waiting.popleft()
        self._n_waiting -= 1
        self._running.add(place)
        self._attempts[place] = self._attempts.get(place, 0) + 1
        return place

    def finished(self, place: int) -> bool:
        """A result for a cell came in; whether it is the first one, and so counts."""
        if place not in self._running:
            return False
        self._running.remove(place)
        return True

    def lost(self, worker: Hashable, place: int | None) -> bool:
        """A worker is gone, and with it the run of the cell it had, if any.

        Returns:
            Whether all is well: the cell waits again. False = it was lost as often as is tried.
        """
        self._group_of_worker.pop(worker, None)
        if place is None or place not in self._running:
            return True
        self._running.remove(place)
        if self._attempts[place] >= ATTEMPTS:
            return False
        self._of_group[loaded_key(self._cells[place])].appendleft(place)
        self._n_waiting += 1
        return True

    def _next_group(self) -> Hashable:
        while self._untouched:
            key = self._untouched.pop()
            if self._of_group[key]:
                return key
        return max(self._of_group, key=lambda key: len(self._of_group[key]))


__all__ = ["ATTEMPTS", "CellQueue"]
