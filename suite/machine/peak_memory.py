"""Peak memory of a phase, on the host and on the accelerator.

The host's peak is exact if Linux lets the process reset its high-water mark (by writing 5 to
`/proc/self/clear_refs`); otherwise a thread samples the resident memory. The accelerator's peak is PyTorch's
count of allocated bytes. Both marks belong to the process, not to a phase, so watches that are open at the
same time share them: before a mark is reset, its value is stored in all open watches.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import psutil

if TYPE_CHECKING:
    import torch

SAMPLE_EVERY_S = 0.01
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_SLACK_BYTES = 16 * 2**20
"""Tolerated excess of the high-water mark after a reset: the kernel sums the page counts of threads late."""


class MemoryWatch:
    """Measures peak memory while it is open; watches may be nested and may overlap.

    Args:
        device: the accelerator to include; None or a CPU watches only the host.

    Attributes:
        host_bytes: highest resident memory of the process so far, in bytes.
        device_bytes: highest memory allocated on the accelerator so far, in bytes; None without one.
    """

    _open: ClassVar[list[MemoryWatch]] = []
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self.host_bytes = 0
        self.device_bytes: int | None = None if self._device is None else 0
        self._exact = False
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        with self._lock:
            self._take_down()
            self.host_bytes = psutil.Process().memory_info().rss
            self._exact = _reset_high_water()
            self._reset_device()
            self._open.append(self)
        if not self._exact:
            self._sampler = threading.Thread(target=self._sample, name="memory-watch", daemon=True)
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._take_down()
            self._open.remove(self)
        if self._sampler is not None:
            self._stop.set()
            self._sampler.join()

    @classmethod
    def _take_down(cls) -> None:
        """Updates every open watch with the peaks since the last reset."""
        high_water = _high_water()
        for watch in cls._open:
            if watch._exact and high_water is not None:
                watch.host_bytes = max(watch.host_bytes, high_water)
            if watch._device is not None:
                import torch

                peak = torch.cuda.max_memory_allocated(watch._device)
                watch.device_bytes = max(watch.device_bytes or 0, peak)

    def _reset_device(self) -> None:
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self.host_bytes = max(self.host_bytes, process.memory_info().rss)
            if self._stop.wait(SAMPLE_EVERY_S):
                return


def _high_water() -> int | None:
    """Returns the process's highest resident memory since the last reset, in bytes; None unless on Linux."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _reset_high_water() -> bool:
    """Resets the high-water mark to the present memory; returns False if that is not possible."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    # Some sandboxes accept the request and ignore it.
    mark = _high_water()
    return mark is not None and mark <= psutil.Process().memory_info().rss + _RESET_SLACK_BYTES


__all__ = ["SAMPLE_EVERY_S", "MemoryWatch"]
