"""What several commands share: options, exit codes, and where output goes."""

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
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto: a GPU if there is one.")]
Placed = Annotated[
    Literal["resident", "onload"],
    typer.Option(
        "--placement",
        help="resident: the whole model is on the device. onload: one decoder layer at a time is read from "
        "the model's files, so the model may be larger than the memory of the device and of the host.",
    ),
]
First = Annotated[
    Literal["auto", "never", "always"],
    typer.Option(
        "--first-token",
        help="Begin each sequence with the tokenizer's first token (BOS). auto: if that lowers the dense "
        "model's perplexity by more than 10 %.",
    ),
]
LoadedAs = Annotated[
    DTypeName,
    typer.Option("--dtype", help="auto: bfloat16 if the hardware multiplies it natively, else float32."),
]
Revision = Annotated[str | None, typer.Option("--revision", help="The model's revision on the hub.")]
Trusted = Annotated[
    bool, typer.Option("--trust-remote-code", help="Allow code that comes with the model to run.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the method, key=value; repeatable.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Only cells whose label contains this text or matches this glob; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]


def progress_bars(n_cells: int) -> ProgressBars:
    """Bars on stderr for that many cells."""
    from suite.commands.output.progress import ProgressBars

    return ProgressBars(n_cells, numbers=_main_numbers)


def _main_numbers(record: Record) -> str:
    from reports.terminal import main_numbers

    return main_numbers(record)


@contextmanager
def stopping_at_sigterm() -> Iterator[None]:
    """While the body runs, a scheduler's SIGTERM ends it as Ctrl-C does. Ray, if started, was before."""
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
    """Prints a result for programs, on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def say(message: str) -> None:
    """Prints a message for people, on stderr."""
    print(message, file=sys.stderr)
