"""Options, exit codes and output functions that several commands share."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from suite.commands.output.progress import ProgressBars
    from suite.results.records.record import Record

FAILED = 3
WRONG_INPUT = 2
BROKEN = 1
INTERRUPTED = 130


DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
Device = Annotated[
    str, typer.Option(help="Device to run on: cpu, cuda, cuda:1, ...; auto: a GPU if there is one.")
]
Placed = Annotated[
    Literal["resident", "onload"],
    typer.Option(
        "--placement",
        help="Where the weights are kept. resident: the whole model on the device. onload: one decoder layer "
        "at a time is read from the model's files, so the model may be larger than the memory of the device "
        "and of the host.",
    ),
]
First = Annotated[
    Literal["auto", "never", "always"],
    typer.Option(
        "--first-token",
        help="Whether to begin each sequence with the tokenizer's first token (BOS). auto: if that lowers "
        "the dense model's perplexity by more than 10 %.",
    ),
]
LoadedAs = Annotated[
    DTypeName,
    typer.Option(
        "--dtype",
        help="dtype in which models are loaded. auto: bfloat16 if the hardware multiplies it natively, else "
        "float32.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="The model's revision on the hub: a branch, tag or commit."),
]
Trusted = Annotated[
    bool, typer.Option("--trust-remote-code", help="Allow Python code that comes with the model to run.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting of the method: key=value; repeatable.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Use only cells whose label contains this text or matches this glob; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout, for other programs.")]


def progress_bars(n_cells: int) -> ProgressBars:
    """Returns progress bars on stderr for `n_cells` cells."""
    from suite.commands.output.progress import ProgressBars

    return ProgressBars(n_cells, numbers=_main_numbers)


def _main_numbers(record: Record) -> str:
    from reports.terminal import main_numbers

    return main_numbers(record)


@contextmanager
def stopping_at_sigterm() -> Iterator[None]:
    """Makes SIGTERM (e.g. from a job scheduler) act like Ctrl-C while the body runs.

    Enter it after Ray has started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_json(value: Any) -> None:
    """Prints a value as JSON to stdout, for other programs."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def say(message: str) -> None:
    """Prints a message for the user to stderr."""
    print(message, file=sys.stderr)
