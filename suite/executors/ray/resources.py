"""The resources that cells need and machines have, and whether the cells fit."""

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
    """The resources that one worker occupies on its machine.

    Attributes:
        cpus: number of threads with which it computes.
        gpus: number of GPUs, 0 or 1.
        host_bytes: host memory in bytes.
    """

    cpus: int
    gpus: int
    host_bytes: int


@dataclass(frozen=True)
class Resources:
    """The resources of a machine.

    Attributes:
        node: name of the machine.
        cpus, gpus, host_bytes: total number of CPUs and GPUs, and host memory in bytes.
    """

    node: str
    cpus: int
    gpus: int
    host_bytes: int

    def n_workers(self, needs: Needs) -> int:
        """Returns how many workers with such needs fit on the machine at the same time."""
        fits = [self.cpus // max(1, needs.cpus), self.host_bytes // max(1, needs.host_bytes)]
        if needs.gpus:
            fits.append(self.gpus // needs.gpus)
        return min(fits)

    def lacks(self, needs: Needs) -> str | None:
        """Describes the first resource of which a worker needs more than the machine has; None if it fits."""
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
    """Raises an error if a cell needs more than any machine has.

    Raises:
        InputError: names the cell, what it needs, and what the largest machine has.
    """
    for cell, wanted in zip(cells, needs, strict=True):
        if not any(machine.lacks(wanted) is None for machine in machines):
            largest = max(machines, key=lambda m: (m.gpus >= wanted.gpus, m.host_bytes, m.cpus))
            raise InputError(f"{cell.label} needs {largest.lacks(wanted)}; no worker is larger")


__all__ = ["Needs", "Resources", "check_resources"]
