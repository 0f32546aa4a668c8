"""`run_suite`: runs a suite, from its file to records and report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import torch

from methods.base import Weights
from suite.api.arguments import checked
from suite.api.stages import PlannedSuite, SuiteOutcome
from suite.cell import Cell
from suite.executors.local import LocalExecutor
from suite.executors.worker import Progress
from suite.machine.devices import resolve_devices
from suite.planning.resume import Existing
from suite.planning.suite_cells import SuiteConfig, in_dtype, load_suite, matching, plan
from suite.results import Record, load_record
from suite.watcher import Silent

LOG = logging.getLogger(__name__)


@checked
def run_suite(
    suite: str | Path | SuiteConfig,
    *,
    out: str | Path | None = None,
    only: str | Sequence[str] = (),
    existing: Existing = "skip",
    device: str | torch.device = "auto",
    placement: Weights = "resident",
    on_cell: Callable[[Record], None] | None = None,
) -> SuiteOutcome:
    """Runs a suite on this machine, or resumes it, as `prunebench run` does.

    A failing cell does not stop the others: it is listed in `failed`, and its record has the traceback.
    Remarks about models and kept stale records are logged as warnings (logger `suite`). Messages use the
    names that options have on the command line.

    Args:
        suite: the name of a built-in suite, a suite file, or the result of `suite.load_suite`.
        out: the folder for records and report; None = `results/<suite>`.
        only: one or more texts or globs; only cells whose label contains or matches one of them are run.
        existing: for cells that already have a record: `skip` them, `rerun-stale` (those whose code or inputs
            changed), `rerun` all, or `fail`.
        device: `cpu`, `cuda`, `cuda:1`...; `auto` = every GPU, or the CPU if there is none.
        placement: `resident` keeps the whole model on the device; `onload` one decoder layer at a time.
        on_cell: called with each record once it is stored, also that of a failed cell. If it raises, the run
            ends.

    Returns:
        The finished, kept and failed cells, their records, and the report's path.

    Raises:
        InputError: an argument cannot be used; nothing was run.
        AssetError: a built-in model or text could not be fetched.
        OSError: a record could not be written (e.g. a full disk); all earlier ones are kept.
        PoolError: all workers on several GPUs were lost; all records received before are stored.
    """
    config = suite if isinstance(suite, SuiteConfig) else load_suite(str(suite))
    cells = plan(config)
    folder = Path("results") / config.name if out is None else Path(out).expanduser()
    with LocalExecutor(resolve_devices(device, None)) as executor:
        cells = in_dtype(cells, executor.dtype(config.dtype))
        planned = PlannedSuite.of(
            config.name,
            matching(cells, [only] if isinstance(only, str) else only),
            executor,
            out=folder.absolute(),
            existing=existing,
            weights=placement,
            warn=LOG.warning,
        )
        stored = None if on_cell is None else lambda path: on_cell(load_record(path))
        return planned.prepared(warn=LOG.warning).carry_out(_Quiet(), warn=LOG.warning, on_written=stored)


class _Quiet(Silent):
    """A run watcher that shows nothing."""

    def worker_at(self, worker: str, cell: Cell | None, progress: Progress) -> None:
        """Does nothing."""

    def lines(self) -> Sequence[str]:
        """Returns no lines: this watcher keeps no state."""
        return ()

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing: nothing was opened."""


__all__ = ["run_suite"]
