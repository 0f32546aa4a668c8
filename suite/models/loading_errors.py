"""What transformers raises for a model it cannot load, as one line; and what it prints, held back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from methods.errors import InputError, PruningError, reason


@contextmanager
def one_line(name: str, part: str = "") -> Iterator[None]:
    """Turns what transformers raises for a folder it cannot load into one line for the user.

    Args:
        name: what the user calls the model.
        part: what of it is being read; empty = all of it.

    Raises:
        InputError: whatever was raised, unless memory ran out or a device failed.
    """
    try:
        yield
    except (InputError, PruningError):
        raise
    except Exception as error:  # files of a model may hold anything, and so may code that comes with it
        from methods.placement.out_of_memory import is_out_of_memory

        said = str(error)
        if is_out_of_memory(error) or (isinstance(error, RuntimeError) and "CUDA" in said):
            raise
        if isinstance(error, ImportError) and "trust_remote_code" not in said:
            raise InputError(
                f"model {name!r} cannot be loaded, since a library cannot be imported: {reason(error)} "
                "(if its import was interrupted, start Python anew)"
            ) from error
        if "trust_remote_code" in said:
            raise InputError(
                f"model {name!r} needs Python code of its own: read it, then allow it (--trust-remote-code)"
            ) from error
        if isinstance(error, RuntimeError) and "conversion of the weights" in said:
            raise InputError(
                f"model {name!r}: its weights do not make the tensors its config.json asks for: parts of one "
                "are missing, or there are too many"
            ) from error
        if isinstance(error, RuntimeError) and ("mismatched" in said or "size mismatch" in said):
            raise InputError(
                f"model {name!r}: its weights do not have the shapes its config.json asks for"
            ) from error
        of = f" with its {part}" if part else ""
        if part == "config.json" and isinstance(error, TypeError | AttributeError | ArithmeticError):
            of += ": a setting has an invalid value or type"
        raise InputError(f"model {name!r} cannot be loaded{of}: {reason(error)}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Holds back the library's warnings and its bar; what they would say is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


__all__ = ["one_line", "quiet_transformers"]
