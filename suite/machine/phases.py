"""What each phase of a cell takes: seconds, peak memory, energy."""

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
    """Charges what is done to named phases, and tells the watcher how far they are.

    Args:
        device: the accelerator to watch, or the CPU.
        watcher: hears of progress.

    Attributes:
        current: the phase that was begun last, finished or not.
        costs: of every finished phase, in order.
    """

    def __init__(self, device: torch.device, watcher: Watcher) -> None:
        self.current = "load"
        self.costs: list[PhaseCost] = []
        self._device = device
        self._watcher = watcher

    def begin(self, name: str, steps: int | None = None) -> None:
        """Names the phase that begins; `steps` of work lie ahead, if that is known."""
        self.current = name
        self._watcher.phase_started(name, steps)

    def stepped(self, steps: int = 1) -> None:
        """Work of the current phase was done."""
        self._watcher.stepped(steps)

    def add(self, name: str, seconds: float) -> None:
        """Charges seconds that somebody else measured."""
        self.costs.append(PhaseCost(name=name, seconds=seconds))

    def charge(self, cost: PhaseCost) -> None:
        """Charges a phase that somebody else measured."""
        self.costs.append(cost)

    @contextmanager
    def timed(self, name: str, steps: int | None = None) -> Iterator[None]:
        """Charges the body to phase `name`; a body that raises is charged nothing."""
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
