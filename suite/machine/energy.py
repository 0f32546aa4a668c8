"""Energy of a phase, if the machine counts it: NVML for NVIDIA GPUs, RAPL for CPUs on Linux.

Both counters cover the whole device, including other processes; RAPL's are often readable only by root. On a
machine without counters the energy is None, never an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class _Counter:
    """A reading in joules, and the value at which the counter wraps around to 0 (None = never)."""

    joules: float
    wraps_at: float | None = None


class EnergyMeter:
    """Measures the energy spent while it is open.

    Args:
        device: the accelerator to include; None or a CPU measures only the host.

    Attributes:
        joules: energy by counter (`gpu`, and `package-0`... for the host); empty if there are no counters.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._before: Mapping[str, _Counter] = {}
        self.joules: dict[str, float] = {}

    def __enter__(self) -> EnergyMeter:
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = self._read()
        for name, before in self._before.items():
            if name in after:
                spent = after[name].joules - before.joules
                self.joules[name] = spent if spent >= 0 else spent + (before.wraps_at or 0.0)

    @property
    def total(self) -> float | None:
        """Sum of all counters in joules; None if there are no counters."""
        return sum(self.joules.values()) if self.joules else None

    def _read(self) -> dict[str, _Counter]:
        found = _rapl(_POWERCAP)
        if self._device is not None and (gpu := _nvml(self._device)) is not None:
            found["gpu"] = gpu
        return found


def meters(device: torch.device | None = None) -> tuple[str, ...]:
    """Returns the names of the energy counters of this machine."""
    with EnergyMeter(device) as meter:
        pass
    return tuple(meter.joules)


def _rapl(powercap: Path) -> dict[str, _Counter]:
    """Reads the counters of the CPU packages, without those of their parts (cores, memory)."""
    found = {}
    for zone in sorted(powercap.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") > 1:  # a part of a package
            continue
        try:
            name = (zone / "name").read_text().strip()
            if name == "psys":  # the whole platform, which includes the packages
                continue
            joules = int((zone / "energy_uj").read_text()) / 1e6
            wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6
        except (OSError, ValueError):
            continue
        found[name] = _Counter(joules, wraps_at)
    return found


def _nvml(device: torch.device) -> _Counter | None:
    """Reads the GPU's counter (Volta and later); None on older GPUs or without NVIDIA's Python bindings."""
    try:
        import pynvml
    except ImportError:
        return None
    import torch

    try:
        pynvml.nvmlInit()
        # Look it up by UUID, because CUDA and NVML may number the GPUs differently.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return _Counter(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
    except (pynvml.NVMLError, AttributeError):
        return None


__all__ = ["EnergyMeter", "meters"]
