"""What a cell needs of a machine, and whether any has that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.errors import InputError

if TYPE_CHECKING:
    from suite.cell import Cell

GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """What one worker takes of its machine while it lives.

    Attributes:
        cpus: threads it computes with.
        gpus: 0 or 1.
        host_bytes: of memory.
    """

    cpus: int
    gpus: int
    host_bytes: int


@dataclass(frozen=True)
class Resources:
    """What a machine has for workers.

    Attributes:
        node: what it is called.
        cpus, gpus, host_bytes: in all.
    """

    node: str
    cpus: int
    gpus: int
    host_bytes: int

    def n_workers(self, needs: Needs) -> int:
        """How many workers with such needs fit side by side."""
        fits = [self.cpus // max(1, needs.cpus), self.host_bytes // max(1, needs.host_bytes)]
        if needs.gpus:
            fits.append(self.gpus // needs.gpus)
        return min(fits)

    def lacks(self, needs: Needs) -> str | None:
        """What a worker needs that is not there, in words; None where it fits."""
        if needs.cpus > self.cpus:
            return f"{needs.cpus} CPUs, and {self.node} has {self.cpus}"
        if needs.gpus > self.gpus:
            return f"a GPU, and {self.node} has none"
        if needs.host_bytes > self.host_bytes:
            return (
                f"{needs.host_bytes / GIB:.1f} GiB of memory, and {self.node} has {self.host_bytes / GIB:.1f}"
            )
        return None


def check_resources(cells: Sequence[Cell], needs: Sequence[Needs], machines: Sequence[Resources]) -> None:
    """Refuses cells that are larger than any machine.

    Raises:
        InputError: names the cell, what it needs, and what the largest machine has.
    """
    for cell, wanted in zip(cells, needs, strict=True):
        if not any(machine.lacks(wanted) is None for machine in machines):
            largest = max(machines, key=lambda m: (m.gpus >= wanted.gpus, m.host_bytes, m.cpus))
            raise InputError(f"{cell.label} needs {largest.lacks(wanted)}; no worker is larger")


__all__ = ["Needs", "Resources", "check_resources"]
