"""Decides which cell goes to which worker; depends only on the order of events, not on processes or time."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from suite.cell import Cell
from suite.evaluation.inputs import loaded_key

ATTEMPTS = 3
"""How often a cell is tried; if its worker is lost each time, the cell counts as failed."""


class CellQueue:
    """A queue that keeps each worker on one model as long as that model has cells left.

    Cells of one model, dtype and thread count form a group, within which a worker keeps the model, the dense
    reference and the inputs. A worker whose group is empty takes the largest group that no worker has begun,
    or, if there is none, the group with the most cells left. The dense cell of a group comes first.

    Args:
        cells: all cells to run.
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
        """Number of cells that wait for a worker."""
        return self._n_waiting

    @property
    def n_running(self) -> int:
        """Number of cells that a worker is running."""
        return len(self._running)

    def take(self, worker: Hashable) -> int | None:
        """Returns the index of the next cell for an idle worker; None if no cell waits."""
        if not self._n_waiting:
            return None
        group = self._group_of_worker.get(worker)
        waiting = self._of_group[group] if group is not None else None
        if not waiting:
            group = self._next_group()
            self._group_of_worker[worker] = group
            waiting = self._of_group[group]
        place = waiting.popleft()
        self._n_waiting -= 1
        self._running.add(place)
        self._attempts[place] = self._attempts.get(place, 0) + 1
        return place

    def finished(self, place: int) -> bool:
        """Marks a cell as finished; returns False if it was not running and its result does not count."""
        if place not in self._running:
            return False
        self._running.remove(place)
        return True

    def lost(self, worker: Hashable, place: int | None) -> bool:
        """Removes a lost worker and puts its cell, if any, back into the queue.

        Returns:
            False if the cell was lost `ATTEMPTS` times and is given up; else True.
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
