"""The seam behind which a plan runs: on this machine (`local`), or on a cluster (`ray.executor`)."""

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
    """Hears of one cell at a time, or of several workers."""


@dataclass(frozen=True)
class Job:
    """A plan, ready to be run.

    Attributes:
        planned: its cells, and which of them run.
        inputs: what they read, by model.
        options: how each session is set up.
        writer: stores the records.
        watcher: hears of progress.
    """

    planned: Sequence[PlannedCell]
    inputs: Mapping[ModelKey, Inputs]
    options: WorkerOptions
    writer: RecordWriter
    watcher: CellsWatcher


class Executor(Protocol):
    """Runs plans somewhere; a context, in which it may hold a cluster.

    Attributes:
        device: the kind of device that cells run on, for estimates.
    """

    device: torch.device

    def dtype(self, wanted: str) -> DType:
        """`auto` is bf16 where the hardware that cells run on multiplies it natively, else fp32."""
        ...

    def available(self) -> Available:
        """The memory that one cell may use; of several machines the most."""
        ...

    def run(self, job: Job) -> None:
        """Runs the cells that have to; every record is stored as soon as it is there."""
        ...

    def forget_shared(self, options: WorkerOptions) -> None:
        """Removes what the cells of a finished plan shared."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


__all__ = ["CellsWatcher", "Executor", "Job"]
