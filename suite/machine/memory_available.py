"""The memory and disk that a machine has, and what a cell asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from suite.machine.scratch import free_scratch, scratch_root

if TYPE_CHECKING:
    import torch

GIB = 2**30


_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class Memory:
    """What a cell takes, about and at least.

    Attributes:
        host_bytes: of the host's memory.
        device_bytes: of the accelerator's; None without one.
        least_host_bytes: what cannot be done without: weights, copies of them, hidden states.
        least_device_bytes: likewise.
        scratch_bytes: of the scratch's disk, for pruned layers while the cell runs.
    """

    host_bytes: int
    device_bytes: int | None
    least_host_bytes: int
    least_device_bytes: int | None
    scratch_bytes: int = 0

    def short(self) -> str:
        """`host 3.1, GPU 12.0 GiB`."""
        on_device = "" if self.device_bytes is None else f", GPU {self.device_bytes / GIB:.1f}"
        on_disk = f", disk {self.scratch_bytes / GIB:.1f}" if self.scratch_bytes else ""
        return f"host {self.host_bytes / GIB:.1f}{on_device}{on_disk} GiB"

    def in_words(self) -> str:
        """`3.1 GiB of host memory and 12.0 GiB of the GPU's`."""
        host = f"{self.host_bytes / GIB:.1f} GiB of host memory"
        if self.device_bytes is None:
            return host
        return f"{host} and {self.device_bytes / GIB:.1f} GiB of the GPU's"


@dataclass(frozen=True)
class Available:
    """What a machine has.

    Attributes:
        host_bytes: of memory, or what a control group may use of it.
        device_bytes: of one accelerator; None without one.
        scratch_bytes: free where pruned layers lie while their cell runs; None where that is not known.
    """

    host_bytes: int
    device_bytes: int | None
    scratch_bytes: int | None = None

    def lacks(self, needed: Memory, *, surely: bool = False) -> str | None:
        """What is needed and not there, in words; None where it fits.

        Args:
            needed: by a cell.
            surely: hold what it cannot do without against it, not the estimate.
        """
        host = needed.least_host_bytes if surely else needed.host_bytes
        on_device = needed.least_device_bytes if surely else needed.device_bytes
        if on_device is not None and self.device_bytes is not None and on_device > self.device_bytes:
            return f"{on_device / GIB:.1f} GiB on the GPU, which has {self.device_bytes / GIB:.1f}"
        if host > self.host_bytes:
            return f"{host / GIB:.1f} GiB of host memory, of which there are {self.host_bytes / GIB:.1f}"
        if self.scratch_bytes is not None and needed.scratch_bytes > self.scratch_bytes:
            free = f"{self.scratch_bytes / GIB:.1f} are free"
            return f"{needed.scratch_bytes / GIB:.1f} GiB of disk in {scratch_root()}, of which {free}"
        return None


def memory_available(device: torch.device) -> Available:
    """What this machine has, or what the control group of this process may use of it; and its scratch."""
    import psutil

    host = psutil.virtual_memory().total
    for file in _CGROUP_LIMITS:
        try:
            host = min(host, int(file.read_text()))
        except (OSError, ValueError):  # no such group, or one without a limit
            continue
    if device.type != "cuda":
        return Available(host, None, free_scratch())
    import torch

    return Available(host, torch.cuda.get_device_properties(device).total_memory, free_scratch())


__all__ = ["GIB", "Available", "Memory", "memory_available"]
