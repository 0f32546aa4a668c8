"""Suites become cells, cells become records, records become reports.

from suite import run_suite
outcome = run_suite("smoke")
print(outcome.report, *outcome.failed)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suite.api.checkpoints import Evaluation, PrunedCheckpoint, evaluate_checkpoint, prune_checkpoint
    from suite.api.run_suite import run_suite
    from suite.api.suite_run import SuiteOutcome

_NAMES = {
    "api.checkpoints": ("Evaluation", "PrunedCheckpoint", "evaluate_checkpoint", "prune_checkpoint"),
    "api.run_suite": ("run_suite",),
    "api.suite_run": ("SuiteOutcome",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, so that importing the package stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module 'suite' has no attribute {name!r}")
    return getattr(import_module(f"suite.{_HOME[name]}"), name)


__all__ = [
    "Evaluation",
    "PrunedCheckpoint",
    "SuiteOutcome",
    "evaluate_checkpoint",
    "prune_checkpoint",
    "run_suite",
]
