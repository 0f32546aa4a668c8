"""Work that a cell shares with other cells of its plan, in this process and, through files, in others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from methods.initial import initial_prunes_from
from suite.cell import PerplexitySpec, TaskSpec
from suite.machine.phases import PhaseLog
from suite.results.records.record import PhaseCost, SharedPart
from suite.sharing.folder import SharedFolder
from suite.sharing.identity import conditions
from suite.sharing.initial_prunes import SharedInitialPrunes, added
from suite.sharing.reference import ReferenceFiles, ReferenceSpec, compared_by, part_digest

if TYPE_CHECKING:
    import torch

    from methods.base import CalibrationSet, PruneResult, PruningMethod
    from suite.cell import Cell
    from suite.evaluation.dense_reference import DenseReference
    from suite.evaluation.inputs import Inputs
    from suite.evaluation.measured import Measured
    from suite.models.loading import LoadedModel
    from suite.watcher import Watcher


@dataclass(frozen=True)
class SharedWork:
    """The work that the cells of one process share.

    Attributes:
        folder: where it is stored for other processes on this machine, and for the next run after a crash;
            None = only the dense reference is shared, in memory.
        wanted: digests of the initial prunes that are worth storing (`suite.sharing.wanted_initials`).
    """

    folder: SharedFolder | None = None
    wanted: frozenset[str] = frozenset()


class CellShare:
    """Reads and stores the work that one cell shares with others.

    Args:
        work: the shared work of all cells of the process.
        cell: the cell as it is run.
        planned: the cell as planned.
        loaded: the cell's model.
        device: the device on which layers compute.
        inputs: what the cells of this model read.
        reference: what has been measured of the dense model.

    Attributes:
        parts: the work shared with other cells so far.
    """

    def __init__(
        self,
        work: SharedWork,
        cell: Cell,
        planned: Cell,
        loaded: LoadedModel,
        device: torch.device,
        inputs: Inputs,
        reference: DenseReference,
    ) -> None:
        self.parts: list[SharedPart] = []
        self._work = work
        self._cell = cell
        self._planned = planned
        self._identity = loaded.identity
        self._device = device
        self._placement = loaded.placement
        self._inputs = inputs
        self._reference = reference

    @contextmanager
    def dense_measured(self) -> Iterator[None]:
        """Locks out other processes while the body measures the dense model, and stores the results."""
        with self._making_reference():
            yield
            self._keep(compared_by(self._cell))

    def complete_reference(
        self, log: PhaseLog, watcher: Watcher, measure: Callable[[Cell, PhaseLog], Measured]
    ) -> list[str]:
        """Completes the dense results that the cell is compared with: reads them from files or measures them.

        Args:
            log: receives the time that this takes.
            watcher: receives progress events.
            measure: measures a cell on the dense model, logging its phases in the given log.

        Returns:
            Remarks that a reader of the results should know.
        """
        remarks: list[str] = []
        if not self._cell.compares:
            return remarks
        made: set[ReferenceSpec] = set()
        if (missing := self._reference.missing(self._cell)) is not None:
            with log.timed("dense reference"), self._making_reference():
                if self._files is not None:
                    for spec in compared_by(missing):
                        self._files.read(spec, self._reference)
                if (missing := self._reference.missing(self._cell)) is not None:
                    inner = PhaseLog(self._device, watcher)
                    remarks = measure(missing, inner).remarks
                    made = set(compared_by(missing))
                    self._keep(made)
        for spec in compared_by(self._cell):
            part = SharedPart(
                what="dense reference",
                name=_name(spec, self._inputs),
                digest=part_digest(spec, self._conditions, self._inputs),
                seconds=self._reference.seconds[spec],
                reused=spec not in made,
            )
            self.parts.append(part)
        return remarks

    def calibrated(self, source: str, digest: str, seconds: float) -> None:
        """Records the calibration set in `parts`; it was drawn before any cell ran."""
        self.parts.append(
            SharedPart(what="calibration", name=source, digest=digest, seconds=seconds, reused=True)
        )

    @contextmanager
    def initial_prunes(self) -> Iterator[None]:
        """Lets the body read stored initial masks while it prunes; `parts` lists them afterwards."""
        if self._initial is None:
            yield
            return
        try:
            with initial_prunes_from(self._initial):
                yield
        finally:
            self.parts += self._initial.parts

    @property
    def known_prunes(self) -> PhaseCost | None:
        """Recorded cost of the initial prunes that were read instead of run; None if there were none."""
        known = self._initial.known if self._initial is not None else []
        return added(known) if known else None

    def offer(
        self,
        method: PruningMethod,
        loaded: LoadedModel,
        calibration: CalibrationSet | None,
        result: PruneResult,
        cost: PhaseCost,
    ) -> None:
        """Stores the prune of this cell and its cost if other cells start from it."""
        if self._initial is not None:
            self._initial.offer(method, loaded.model, calibration, self._placement, result, cost)

    @cached_property
    def _conditions(self) -> dict[str, object]:
        return conditions(self._identity, self._device, self._placement)

    @cached_property
    def _initial(self) -> SharedInitialPrunes | None:
        work = self._work
        if work.folder is None or not work.wanted:
            return None
        return SharedInitialPrunes(self._planned, work.folder, work.wanted, self._conditions, self._device)

    @cached_property
    def _files(self) -> ReferenceFiles | None:
        folder = self._work.folder
        return None if folder is None else ReferenceFiles(folder, self._conditions, self._inputs)

    def _making_reference(self) -> AbstractContextManager[object]:
        return nullcontext() if self._files is None else self._files.locked()

    def _keep(self, specs: Iterable[ReferenceSpec]) -> None:
        if self._files is not None:
            for spec in specs:
                self._files.write(spec, self._reference)


def _name(spec: ReferenceSpec, inputs: Inputs) -> str:
    if isinstance(spec, PerplexitySpec):
        return inputs.windows[spec].protocol
    return spec.name if isinstance(spec, TaskSpec) else spec.prompts


__all__ = ["CellShare", "SharedWork"]
