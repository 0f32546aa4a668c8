"""The memory and disk space that a machine has and that a cell needs."""

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
    """Memory and disk space that a cell needs: an estimate and a lower bound.

    Attributes:
        host_bytes: estimated host memory.
        device_bytes: estimated memory of the accelerator; None without one.
        least_host_bytes: lower bound of the host memory: weights, copies of them, hidden states.
        least_device_bytes: lower bound of the accelerator's memory; None without one.
        scratch_bytes: disk space in the scratch folder, for pruned layers while the cell runs.
    """

    host_bytes: int
    device_bytes: int | None
    least_host_bytes: int
    least_device_bytes: int | None
    scratch_bytes: int = 0

    def short(self) -> str:
        """Returns the estimate in short form, e.g. `host 3.1, GPU 12.0 GiB`."""
        on_device = "" if self.device_bytes is None else f", GPU {self.device_bytes / GIB:.1f}"
        on_disk = f", disk {self.scratch_bytes / GIB:.1f}" if self.scratch_bytes else ""
        return f"host {self.host_bytes / GIB:.1f}{on_device}{on_disk} GiB"

    def in_words(self) -> str:
        """Returns the estimate in words, e.g. `3.1 GiB of host memory and 12.0 GiB of the GPU's`."""
        host = f"{self.host_bytes / GIB:.1f} GiB of host memory"
        if self.device_bytes is None:
            return host
        return f"{host} and {self.device_bytes / GIB:.1f} GiB of the GPU's"


@dataclass(frozen=True)
class Available:
    """Memory and disk space of a machine.

    Attributes:
        host_bytes: host memory, or the limit of the process's control group if that is lower.
        device_bytes: memory of one accelerator; None without one.
        scratch_bytes: free disk space in the scratch folder; None if unknown.
    """

    host_bytes: int
    device_bytes: int | None
    scratch_bytes: int | None = None

    def lacks(self, needed: Memory, *, surely: bool = False) -> str | None:
        """Describes what a cell needs more of than there is; None if the cell fits.

        Args:
            needed: memory and disk space that the cell needs.
            surely: compare the lower bounds instead of the estimates.
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
    """Returns the memory that this process may use, and the free disk space of the scratch folder."""
    import psutil

    host = psutil.virtual_memory().total
    for file in _CGROUP_LIMITS:
        try:
            host = min(host, int(file.read_text()))
        except (OSError, ValueError):  # no such control group, or no limit set
            continue
    if device.type != "cuda":
        return Available(host, None, free_scratch())
    import torch

    return Available(host, torch.cuda.get_device_properties(device).total_memory, free_scratch())


__all__ = ["GIB", "Available", "Memory", "memory_available"]
