"""The command `prunebench`: collects its subcommands, and turns their errors into messages and exit codes."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from methods.errors import InputError, PruningError, StructureError
from suite.commands.checkpoints import evaluate, prune
from suite.commands.export import export
from suite.commands.gate import gate
from suite.commands.history import history
from suite.commands.inform import check_method, doctor, list_
from suite.commands.options import FAILED, INTERRUPTED, WRONG_INPUT, say
from suite.commands.report import report
from suite.commands.run import run
from suite.commands.site import site
from suite.commands.verify import verify

app = typer.Typer(
    name="prunebench",
    help="A benchmark for one-shot pruning of LLMs: prune, measure, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 success, 1 a regression, a wrong record or a broken promise was found, 2 wrong "
    "input, 3 something failed or could not be compared, 130 interrupted.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"prunebench {version('prunebench')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `prunebench` itself, which precede the name of a subcommand."""


@dataclass(frozen=True)
class Entry:
    """A subcommand, and the text at the end of its help.

    Args:
        command: the function that runs it.
        example: a command line that works without a network, at most 78 characters: help does not wrap it.
        does: what the example does, as a continuation of "this".
        exit_codes: meaning of its exit codes, if it differs from that of all commands.
    """

    command: Callable[..., None]
    example: str
    does: str
    exit_codes: str | None = None

    @property
    def name(self) -> str:
        """Name of the command, taken from the example."""
        return self.example.split()[1]

    @property
    def epilog(self) -> str:
        """The exit codes, if any, and the example on a separate line."""
        parts = [f"For example, this {self.does}:", self.example]
        if self.exit_codes is not None:
            parts.insert(0, f"Exit codes: {self.exit_codes}.")
        return "\n\n".join(parts)


PANELS: Mapping[str, Sequence[Entry]] = {
    "Run and measure": (
        Entry(
            run,
            example="prunebench run quickstart",
            does="prunes a 135M model six ways, and writes results/quickstart/report.html",
        ),
        Entry(
            prune,
            example="prunebench prune smollm2-135m --method wanda --sparsity 0.5 --out pruned",
            does="removes half of the weights, and writes a checkpoint that transformers loads",
        ),
        Entry(
            evaluate,
            example="prunebench evaluate pruned --dense smollm2-135m --out results/pruned",
            does="measures the checkpoint in pruned/, and compares it with the dense model",
        ),
    ),
    "Show": (
        Entry(
            report,
            example="prunebench report results --out report.html",
            does="puts all records below results/ on one page",
        ),
        Entry(
            export,
            example="prunebench export results/smoke --format csv --out smoke.csv",
            does="writes a table with one row per metric",
        ),
        Entry(
            site,
            example="prunebench site results --out site",
            does="ranks all records below results/, and writes site/index.html",
        ),
        Entry(
            history,
            example="prunebench history results --metric perplexity --by commit",
            does="draws one line per cell, and names the commits that changed its perplexity",
        ),
    ),
    "Check": (
        Entry(
            verify,
            example="prunebench verify results/smoke --sample 1",
            does="checks all records of results/smoke, and reruns one of them",
            exit_codes="0 no problem, 1 a problem was found, 2 wrong input, 3 a rerun was not possible",
        ),
        Entry(
            gate,
            example="prunebench gate baseline results/smoke",
            does="exits with 1 if results/smoke is worse than the records in baseline/",
            exit_codes="0 no regression, 1 a regression, 2 wrong input, 3 something could not be compared",
        ),
        Entry(
            check_method,
            example="prunebench check-method wanda --family llama",
            does="checks Wanda on tiny LLaMA models, and leaves the other families out",
            exit_codes="0 every promise is kept, 1 a promise is broken, 2 wrong input, 3 something failed",
        ),
    ),
    "Find out": (
        Entry(
            list_,
            example="prunebench list methods",
            does="prints the names that --method takes, and what each method does",
        ),
        Entry(
            doctor,
            example="prunebench doctor smollm2-135m",
            does="shows this machine, and the layers of the built-in model that are pruned",
        ),
    ),
}
"""The commands, grouped by the panels of the main help."""

for _panel, _entries in PANELS.items():
    for _entry in _entries:
        app.command(_entry.name, rich_help_panel=_panel, epilog=_entry.epilog)(_entry.command)


def main() -> None:
    """Runs the command; ends with an exit code, and after an error with a message of one line."""
    # A character that the terminal's encoding cannot show must not make the command fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Slow steps before the first progress bar (downloads, builds) are announced on stderr.
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("suite").setLevel(logging.INFO)
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer has caught the interrupt
            raise KeyboardInterrupt
    except (InputError, StructureError) as error:
        code = _end(str(error), WRONG_INPUT)
    except TyperException as error:
        code = _end(error.format_message(), WRONG_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = _end("interrupted; finished cells are kept, the same command resumes", INTERRUPTED)
    except (PruningError, OSError) as error:
        code = _end(str(error), FAILED)
    except Exception as error:
        # Python's own exit code for a traceback is 1, which here means that a regression was found.
        if os.environ.get("PRUNEBENCH_TRACEBACK"):
            traceback.print_exc()
        code = _end(_unforeseen(error), FAILED)
    _codes.append(code or 0)
    sys.exit(code)


def _unforeseen(error: Exception) -> str:
    """Returns the message for an unexpected error; failed downloads have a message of their own."""
    from suite.machine.cache import AssetError

    if isinstance(error, AssetError):
        return str(error)
    return f"{type(error).__name__}: {error} (PRUNEBENCH_TRACEBACK=1 shows where)"


def _end(message: str, code: int) -> int:
    say(f"prunebench: {' '.join(message.split())}")
    return code


def program() -> None:
    """Runs `main` so that the shutdown of libraries cannot change its exit code.

    Threads of libraries that still run at shutdown can abort a process that has already done its work.
    """
    # Registered first, so it runs last: after all other handlers, and before the libraries shut down.
    atexit.register(_leave)
    main()


def _leave() -> None:
    if _codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a broken pipe or a closed stream
                stream.flush()
        os._exit(_codes[-1])


_codes: list[int] = []
"""The exit code as the last element; empty until `main` has ended."""

if __name__ == "__main__":
    program()
