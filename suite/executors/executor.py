"""The executors: where a plan runs, behind one seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from methods.errors import InputError
from suite.cell import DType
from suite.executors.bench import BenchOptions, open_workbench, shared_folder
from suite.executors.drive import WorkersWatcher, drive
from suite.executors.needs import Needs, check_room
from suite.executors.plan import PlannedCell
from suite.executors.quiet_ray import quiet_ray
from suite.executors.tally import Tally
from suite.memory_needs import Available, memory_available
from suite.preflight import Inputs, ModelKey
from suite.watcher import Watcher

if TYPE_CHECKING:
    import torch

    from suite.cell import Cell
    from suite.executors.ray_cluster import RayCluster


class CellsWatcher(Watcher, WorkersWatcher, Protocol):
    """Hears of one cell at a time, or of several workers."""


class Executor(Protocol):
    """Runs plans somewhere.

    Attributes:
        device: the kind of device that cells run on, for estimates.
    """

    device: torch.device

    def dtype(self, wanted: str) -> DType:
        """`auto` is bf16 where the hardware that cells run on multiplies it natively, else fp32."""
        ...

    def available(self) -> Available:
        """The memory of the machine that cells run on; of several the most."""
        ...

    def run(
        self,
        planned: Sequence[PlannedCell],
        inputs: Mapping[ModelKey, Inputs],
        options: BenchOptions,
        tally: Tally,
        watcher: CellsWatcher,
    ) -> None:
        """Runs the cells that have to; every record is stored as soon as it is there."""
        ...

    def forget_shared(self, options: BenchOptions) -> None:
        """Removes what the cells of a finished plan shared."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalExecutor:
    """Cells on this machine: in this process, or a process a device where there are several.

    Args:
        devices: one a worker, as `suite.plan.resolve_devices` gives them.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.device = devices[0]
        self._devices = devices

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between runs."""

    def dtype(self, wanted: str) -> DType:
        """See `Executor.dtype`."""
        from suite.plan import resolve_dtype

        return resolve_dtype(wanted, self.device)

    def available(self) -> Available:
        """See `Executor.available`."""
        return memory_available(self.device)

    def run(
        self,
        planned: Sequence[PlannedCell],
        inputs: Mapping[ModelKey, Inputs],
        options: BenchOptions,
        tally: Tally,
        watcher: CellsWatcher,
    ) -> None:
        """See `Executor.run`."""
        from suite.executors.here import run_with

        if len(self._devices) == 1:
            run_with(planned, open_workbench(self.device, inputs, options), tally, watcher)
            return
        from suite.executors.process_pool import ProcessPool

        pool = ProcessPool(
            [str(device) for device in self._devices], options, inputs, self._threads_of_each()
        )
        drive(planned, pool, tally, watcher, inputs)

    def forget_shared(self, options: BenchOptions) -> None:
        """See `Executor.forget_shared`."""
        forget_shared(options)

    def _threads_of_each(self) -> int | None:
        import torch

        return max(1, torch.get_num_threads() // len(self._devices))


class RayExecutor:
    """Cells on the machines of a Ray cluster.

    Args:
        address: `auto`, or host:port of the head; None = a Ray of this machine's own.
        device: `auto`, `cpu` or `cuda`.
        workers: how many at most; None = as many as fit.
        ask: whether workers are asked how far they are.
        say: tells people what happens to nodes.

    Raises:
        InputError: the cluster cannot be joined, or a machine of it has other software.
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

        from suite.executors.ray_cluster import RayCluster

        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: Ray chooses which; give auto, cpu or cuda")
        self._workers, self._ask, self._say = workers, ask, say
        self._is_ours = address is None
        self._open = ExitStack()
        try:
            self._open.enter_context(quiet_ray())
            self._cluster: RayCluster = RayCluster(address, gpu=device != "cpu")
            self._open.callback(self._cluster.close)
            self._nodes = self._cluster.nodes()
            for why in self._cluster.refused.values():
                raise InputError(f"{why}: install the same on both")
            has_gpu = any(node.room.gpus for node in self._nodes)
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
        from suite.executors.node import same_bf16
        from suite.plan import resolve_dtype

        reports = [node.report for node in self._nodes if node.report is not None]
        if wanted != "auto" or not reports:
            return resolve_dtype(wanted, self.device)
        # Nodes without a GPU take no part where cells run on GPUs.
        used = [report for report in reports if (report.device != "cpu") == (self._kind == "cuda")]
        return "bfloat16" if same_bf16(used) else "float32"

    def available(self) -> Available:
        """See `Executor.available`."""
        if self._is_ours:
            on_device = memory_available(self.device).device_bytes
        else:
            of_nodes = [node.report.device_bytes for node in self._nodes if node.report is not None]
            on_device = max((found for found in of_nodes if found is not None), default=None)
        return Available(max((node.room.host_bytes for node in self._nodes), default=0), on_device)

    def run(
        self,
        planned: Sequence[PlannedCell],
        inputs: Mapping[ModelKey, Inputs],
        options: BenchOptions,
        tally: Tally,
        watcher: CellsWatcher,
    ) -> None:
        """See `Executor.run`.

        Raises:
            InputError: a cell is larger than any machine.
        """
        from suite.executors.ray_pool import RayPool

        cells = [entry.cell for entry in planned if entry.runs]
        rooms = [node.room for node in self._nodes]
        needs = [self._needs(cell) for cell in cells]
        check_room(cells, needs, rooms)
        most = Needs(
            max((need.cpus for need in needs), default=1),
            int(self._kind == "cuda"),
            max((need.host_bytes for need in needs), default=0),
        )
        pool = RayPool(
            self._cluster,
            most,
            self._kind,
            options,
            inputs,
            limit=self._workers,
            ask=self._ask,
            say=self._say,
        )
        drive(planned, pool, tally, watcher, inputs)

    def forget_shared(self, options: BenchOptions) -> None:
        """See `Executor.forget_shared`."""
        self._cluster.on_each_node(forget_shared, options)

    def _needs(self, cell: Cell) -> Needs:
        from suite.estimate import memory_needed

        gpus = int(self._kind == "cuda")
        memory = memory_needed(cell, self.device)
        # An estimate is no reason to refuse a cell: what is surely too large was refused before.
        most = max((node.room.host_bytes for node in self._nodes), default=0)
        host_bytes = 0 if memory is None else min(memory.host_bytes, most)
        return Needs(cell.threads or self._threads(gpus), gpus, host_bytes)

    def _threads(self, gpus: int) -> int:
        """Of cells that do not say: a fair share of the smallest machine."""
        shares = [
            node.room.cpus // (node.room.gpus if gpus else min(self._workers or 1, node.room.cpus) or 1)
            for node in self._nodes
            if node.room.cpus and (node.room.gpus or not gpus)
        ]
        return max(1, min(shares, default=1))


def forget_shared(options: BenchOptions) -> None:
    """Removes what cells shared on this machine."""
    folder = shared_folder(options)
    if folder is not None:
        folder.remove()


__all__ = ["CellsWatcher", "Executor", "LocalExecutor", "RayExecutor", "forget_shared"]
