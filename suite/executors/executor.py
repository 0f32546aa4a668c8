"""The interface of what runs a plan: on this machine (`local`) or on a cluster (`ray.executor`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from suite.evaluation.inputs import Inputs, ModelKey
from suite.executors.options import WorkerOptions
from suite.executors.outcome import RecordWriter
from suite.executors.scheduler import WorkersWatcher
from suite.planning.resume import PlannedCell
from suite.watcher import Watcher

if TYPE_CHECKING:
    import torch

    from suite.cell import DType
    from suite.machine.memory_available import Available


class CellsWatcher(Watcher, WorkersWatcher, Protocol):
    """Receives the progress events of one cell at a time, or of several workers."""


@dataclass(frozen=True)
class Job:
    """A plan that is ready to run.

    Attributes:
        planned: the cells, each marked as to be run or not.
        inputs: what the cells read, by model.
        options: how each session is set up.
        writer: stores the records.
        watcher: receives progress events.
    """

    planned: Sequence[PlannedCell]
    inputs: Mapping[ModelKey, Inputs]
    options: WorkerOptions
    writer: RecordWriter
    watcher: CellsWatcher


class Executor(Protocol):
    """Runs plans; used as a context manager, since it may be connected to a cluster.

    Attributes:
        device: the kind of device on which cells run, for estimates.
    """

    device: torch.device

    def dtype(self, wanted: str) -> DType:
        """Resolves `auto` to bf16 if the hardware on which cells run multiplies it natively, else to fp32."""
        ...

    def available(self) -> Available:
        """Returns the memory that one cell may use; with several machines, that of the largest."""
        ...

    def run(self, job: Job) -> None:
        """Runs the cells that have to run, and stores each record once it is complete."""
        ...

    def forget_shared(self, options: WorkerOptions) -> None:
        """Removes the files that the cells of a finished plan shared."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


__all__ = ["CellsWatcher", "Executor", "Job"]
