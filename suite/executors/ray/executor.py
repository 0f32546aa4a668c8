"""The executor that runs cells on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from methods.errors import InputError
from suite.executors.executor import Job
from suite.executors.options import WorkerOptions, forget_shared
from suite.executors.ray.cluster import RayCluster
from suite.executors.ray.node import same_bf16
from suite.executors.ray.pool import RayPool
from suite.executors.ray.quiet import quiet_ray
from suite.executors.ray.resources import Needs, check_resources
from suite.executors.scheduler import drive
from suite.machine.devices import resolve_dtype
from suite.machine.memory_available import Available, memory_available
from suite.planning.estimate import memory_needed

if TYPE_CHECKING:
    from methods.base import Weights
    from suite.cell import Cell, DType


class RayExecutor:
    """Runs cells on the machines of a Ray cluster.

    Args:
        address: `auto`, or host:port of the cluster's head; None = start Ray on this machine.
        device: `auto`, `cpu` or `cuda`.
        workers: maximum number of workers; None = as many as fit.
        ask: whether to request progress reports from workers.
        say: called with messages about nodes for the user.

    Raises:
        InputError: the cluster cannot be joined, or the software of one of its machines differs.
    """

    def __init__(
        self,
        address: str | None,
        device: str,
        workers: int | None,
        *,
        ask: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        import torch

        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: Ray chooses the GPU; give auto, cpu or cuda")
        self._workers, self._ask, self._say = workers, ask, say
        self._is_ours = address is None
        self._open = ExitStack()
        try:
            self._open.enter_context(quiet_ray())
            self._cluster = RayCluster(address, gpu=device != "cpu")
            self._open.callback(self._cluster.close)
            self._nodes = self._cluster.nodes()
            for why in self._cluster.refused.values():
                raise InputError(f"{why}: install the same on both")
            has_gpu = any(node.resources.gpus for node in self._nodes)
            if device == "cuda" and not has_gpu:
                raise InputError("--device cuda: no node of the Ray cluster has a GPU")
            self._kind = "cuda" if device != "cpu" and has_gpu else "cpu"
            self.device = torch.device(self._kind)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster."""
        self._open.close()

    def dtype(self, wanted: str) -> DType:
        """See `Executor.dtype`."""
        reports = [node.report for node in self._nodes if node.report is not None]
        if wanted != "auto" or not reports:
            return resolve_dtype(wanted, self.device)
        # If cells run on GPUs, nodes without a GPU do not matter.
        used = [report for report in reports if (report.device != "cpu") == (self._kind == "cuda")]
        return "bfloat16" if same_bf16(used) else "float32"

    def available(self) -> Available:
        """See `Executor.available`."""
        if self._is_ours:
            on_device = memory_available(self.device).device_bytes
        else:
            of_nodes = [node.report.device_bytes for node in self._nodes if node.report is not None]
            on_device = max((found for found in of_nodes if found is not None), default=None)
        return Available(max((node.resources.host_bytes for node in self._nodes), default=0), on_device)

    def run(self, job: Job) -> None:
        """See `Executor.run`.

        Raises:
            InputError: a cell needs more than any machine has.
        """
        cells = [entry.cell for entry in job.planned if entry.runs]
        machines = [node.resources for node in self._nodes]
        needs = [self._needs(cell, job.options.weights) for cell in cells]
        check_resources(cells, needs, machines)
        most = Needs(
            max((need.cpus for need in needs), default=1),
            int(self._kind == "cuda"),
            max((need.host_bytes for need in needs), default=0),
        )
        pool = RayPool(
            self._cluster,
            most,
            self._kind,
            job.options,
            job.inputs,
            limit=self._workers,
            ask=self._ask,
            say=self._say,
        )
        drive(job.planned, pool, job.writer, job.watcher, job.inputs)

    def forget_shared(self, options: WorkerOptions) -> None:
        """See `Executor.forget_shared`."""
        self._cluster.on_each_node(forget_shared, options)

    def _needs(self, cell: Cell, weights: Weights) -> Needs:
        gpus = int(self._kind == "cuda")
        memory = memory_needed(cell, self.device, weights)
        # Never request more than the largest node has: cells that are certainly too large were refused
        # before, and an estimate alone is no reason to refuse a cell.
        most = max((node.resources.host_bytes for node in self._nodes), default=0)
        host_bytes = 0 if memory is None else min(memory.host_bytes, most)
        return Needs(cell.threads or self._threads(gpus), gpus, host_bytes)

    def _threads(self, gpus: int) -> int:
        """Returns the threads of cells that do not set them: a fair share of the smallest machine's CPUs."""
        shares = [
            node.resources.cpus
            // (node.resources.gpus if gpus else min(self._workers or 1, node.resources.cpus) or 1)
            for node in self._nodes
            if node.resources.cpus and (node.resources.gpus or not gpus)
        ]
        return max(1, min(shares, default=1))


__all__ = ["RayExecutor"]
