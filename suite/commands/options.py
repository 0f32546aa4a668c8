"""What several commands share: options, exit codes, and where output goes."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from suite.progress import ProgressBars

FAILED = 3
WRONG_INPUT = 2
BROKEN = 1
INTERRUPTED = 130


class DTypeChoice(StrEnum):
    """What a model is loaded as."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class PlacementChoice(StrEnum):
    """Where a model's weights are while it is pruned."""

    resident = "resident"
    onload = "onload"


class ExistingChoice(StrEnum):
    """What becomes of cells that have a record."""

    skip = "skip"
    rerun_stale = "rerun-stale"
    rerun = "rerun"
    fail = "fail"


class Listable(StrEnum):
    """What can be listed."""

    methods = "methods"
    allocations = "allocations"
    models = "models"
    corpora = "corpora"
    tasks = "tasks"
    suites = "suites"


Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]


def progress_bars(n_cells: int) -> ProgressBars:
    """Bars on stderr for that many cells."""
    from suite.progress import ProgressBars

    return ProgressBars(n_cells)


def print_json(value: Any) -> None:
    """Prints a result for programs, on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def say(message: str) -> None:
    """Prints a message for people, on stderr."""
    print(message, file=sys.stderr)
