"""Runs cells on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from suite.executors.executor import Job
from suite.executors.options import WorkerOptions, forget_shared, open_session
from suite.executors.process_pool import ProcessPool
from suite.executors.scheduler import drive
from suite.machine.devices import resolve_dtype
from suite.machine.memory_available import Available, memory_available

if TYPE_CHECKING:
    import torch

    from suite.cell import DType


class LocalExecutor:
    """Runs cells on this machine: in this process, or with several devices in one process per device.

    Args:
        devices: one device per worker, as returned by `suite.machine.devices.resolve_devices`.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.device = devices[0]
        self._devices = devices

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing: nothing is open between runs."""

    def dtype(self, wanted: str) -> DType:
        """See `Executor.dtype`."""
        return resolve_dtype(wanted, self.device)

    def available(self) -> Available:
        """See `Executor.available`."""
        machine = memory_available(self.device)
        # Each worker loads a model of its own, and all share one host.
        n_workers = len(self._devices)
        disk = machine.scratch_bytes
        return replace(
            machine,
            host_bytes=machine.host_bytes // n_workers,
            scratch_bytes=None if disk is None else disk // n_workers,
        )

    def run(self, job: Job) -> None:
        """See `Executor.run`."""
        if len(self._devices) > 1:
            names = [str(device) for device in self._devices]
            pool = ProcessPool(names, job.options, job.inputs, self._threads_of_each())
            drive(job.planned, pool, job.writer, job.watcher, job.inputs)
            return
        from suite.running.run_cell import run_cell

        session = open_session(self.device, job.inputs, job.options)
        for entry in job.planned:
            if not entry.runs:
                job.writer.keep(entry.cell)
                continue
            job.watcher.cell_started(entry.cell)
            job.writer.write(*run_cell(entry.cell, session, job.watcher))

    def forget_shared(self, options: WorkerOptions) -> None:
        """See `Executor.forget_shared`."""
        forget_shared(options)

    def _threads_of_each(self) -> int | None:
        import torch

        return max(1, torch.get_num_threads() // len(self._devices))


__all__ = ["LocalExecutor"]
