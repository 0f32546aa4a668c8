"""Measures the cost of each phase of a cell: seconds, peak memory, energy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from methods.base import PhaseClock
from suite.machine.energy import EnergyMeter
from suite.machine.peak_memory import MemoryWatch
from suite.results.records.record import PhaseCost
from suite.watcher import Watcher

if TYPE_CHECKING:
    import torch


class PhaseLog:
    """Records the costs of named phases, and reports their progress to a watcher.

    Args:
        device: the device that computes; its memory and energy are measured if it is an accelerator.
        watcher: receives the progress.

    Attributes:
        current: name of the phase that began last, finished or not.
        costs: costs of all finished phases, in order.
    """

    def __init__(self, device: torch.device, watcher: Watcher) -> None:
        self.current = "load"
        self.costs: list[PhaseCost] = []
        self._device = device
        self._watcher = watcher

    def begin(self, name: str, steps: int | None = None) -> None:
        """Reports that a phase begins; `steps` is its number of steps, None if unknown."""
        self.current = name
        self._watcher.phase_started(name, steps)

    def stepped(self, steps: int = 1) -> None:
        """Reports that `steps` more steps of the current phase are done."""
        self._watcher.stepped(steps)

    def add(self, name: str, seconds: float) -> None:
        """Adds a phase of which only the seconds were measured elsewhere."""
        self.costs.append(PhaseCost(name=name, seconds=seconds))

    def charge(self, cost: PhaseCost) -> None:
        """Adds the cost of a phase that was measured elsewhere."""
        self.costs.append(cost)

    @contextmanager
    def timed(self, name: str, steps: int | None = None) -> Iterator[None]:
        """Measures the body as phase `name`; if the body raises, no cost is recorded."""
        self.begin(name, steps)
        clock = PhaseClock(device=self._device)
        with EnergyMeter(self._device) as energy, MemoryWatch(self._device) as memory, clock.phase(name):
            yield
        self.costs.append(
            PhaseCost(
                name=name,
                seconds=clock.seconds[name],
                peak_host_bytes=memory.host_bytes,
                peak_device_bytes=memory.device_bytes,
                energy_joules=energy.total,
            )
        )


__all__ = ["PhaseLog"]
