"""The command `prunebench`: gathers the commands, and turns every way they can end into an exit code."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import traceback
from contextlib import suppress

import typer
from typer.exceptions import TyperException

from methods.errors import InputError, PruningError
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
    help="One-shot LLM pruning as a benchmark: prune, measure, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 fine, 1 a regression was found, 2 the input is wrong, 3 something failed.",
)

app.command()(run)
app.command()(prune)
app.command()(evaluate)
app.command()(report)
app.command()(export)
app.command()(site)
app.command(epilog="Exit codes: 0 fine, 1 a record is not what it claims, 2 wrong input, 3 no rerun.")(verify)
app.command(
    epilog="Exit codes: 0 no regression, 1 a regression, 2 wrong input, 3 something could not be compared."
)(gate)
app.command()(history)
app.command("list")(list_)
app.command()(doctor)
app.command(epilog="Exit codes: 0 every promise is kept, 1 one is broken, 2 the method cannot be loaded.")(
    check_method
)


def main() -> None:
    """Runs the command, and turns every way it can end into an exit code and at most one line."""
    # A name that the terminal's encoding cannot show must not cost what the command found out.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # What takes long before the first bar is drawn (a fetch, a build) says so on stderr.
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("suite").setLevel(logging.INFO)
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer has taken the interrupt for itself
            raise KeyboardInterrupt
    except InputError as error:
        code = _end(str(error), WRONG_INPUT)
    except TyperException as error:
        code = _end(error.format_message(), WRONG_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = _end("interrupted; finished cells stand, the same command resumes", INTERRUPTED)
    except (PruningError, OSError) as error:
        code = _end(str(error), FAILED)
    except Exception as error:
        # Python's own exit code for a traceback is 1, which says here that a regression was found.
        if os.environ.get("PRUNEBENCH_TRACEBACK"):
            traceback.print_exc()
        code = _end(_unforeseen(error), FAILED)
    _codes.append(code or 0)
    sys.exit(code)


def _unforeseen(error: Exception) -> str:
    """One line for an error that nobody planned for; errors of a fetch explain themselves."""
    from suite.cache import AssetError

    if isinstance(error, AssetError):
        return str(error)
    return f"{type(error).__name__}: {error} (PRUNEBENCH_TRACEBACK=1 shows where)"


def _end(message: str, code: int) -> int:
    say(f"prunebench: {' '.join(message.split())}")
    return code


def program() -> None:
    """`main`, as a program: nothing that libraries do while they are taken down changes its exit code.

    Threads of theirs that are still running then have been seen to abort a process that had done its work.
    """
    # Registered first, so it runs last: after all other handlers, and before the libraries are taken down.
    atexit.register(_leave)
    main()


def _leave() -> None:
    if _codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # whoever read it is gone, or it is closed
                stream.flush()
        os._exit(_codes[-1])


_codes: list[int] = []
"""The exit code, once `main` knows it."""

if __name__ == "__main__":
    program()
