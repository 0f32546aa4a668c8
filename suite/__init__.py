"""Runs suites: plans their cells, prunes and measures each, and stores one record per cell.

from suite import run_suite
outcome = run_suite("smoke")
print(outcome.report, *outcome.failed)
"""

from typing import TYPE_CHECKING

from methods.lazy import lazily

if TYPE_CHECKING:
    from suite.api.checkpoints import Evaluation, PrunedCheckpoint, evaluate_checkpoint, prune_checkpoint
    from suite.api.stages import SuiteOutcome
    from suite.api.suites import run_suite
    from suite.cell import CalibrationSpec
    from suite.executors.outcome import FailedCell
    from suite.planning.suite_cells import load_suite
    from suite.results.records.record import Record

_NAMES = {
    "api.checkpoints": ("Evaluation", "PrunedCheckpoint", "evaluate_checkpoint", "prune_checkpoint"),
    "api.suites": ("run_suite",),
    "api.stages": ("SuiteOutcome",),
    "cell": ("CalibrationSpec",),
    "executors.outcome": ("FailedCell",),
    "planning.suite_cells": ("load_suite",),
    "results.records.record": ("Record",),
}
__getattr__, __dir__ = lazily(__name__, _NAMES)

__all__ = [
    "CalibrationSpec",
    "Evaluation",
    "FailedCell",
    "PrunedCheckpoint",
    "Record",
    "SuiteOutcome",
    "evaluate_checkpoint",
    "load_suite",
    "prune_checkpoint",
    "run_suite",
]
