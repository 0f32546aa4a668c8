"""Turns errors of transformers while loading a model into one line, and silences what it prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from methods.errors import InputError, PruningError, reason


@contextmanager
def one_line(name: str, part: str = "") -> Iterator[None]:
    """Turns errors that transformers raises while loading a model into one line for the user.

    Args:
        name: the user's name for the model.
        part: the part of the model that is being read; empty = all of it.

    Raises:
        InputError: in place of any error, except if memory ran out or a device failed.
    """
    try:
        yield
    except (InputError, PruningError):
        raise
    except Exception as error:  # a model's files, and the code that comes with it, can cause any error
        from methods.placement.out_of_memory import is_out_of_memory

        message = str(error)
        if is_out_of_memory(error) or (isinstance(error, RuntimeError) and "CUDA" in message):
            raise
        if isinstance(error, ImportError) and "trust_remote_code" not in message:
            raise InputError(
                f"model {name!r} cannot be loaded because a library cannot be imported: {reason(error)} "
                "(if its import was interrupted, restart Python)"
            ) from error
        if "trust_remote_code" in message:
            raise InputError(
                f"model {name!r} needs Python code of its own: read it, then allow it (--trust-remote-code)"
            ) from error
        if isinstance(error, RuntimeError) and "conversion of the weights" in message:
            raise InputError(
                f"model {name!r}: the tensors that its config.json describes cannot be built from its "
                "weights: parts of one are missing, or there are too many"
            ) from error
        if isinstance(error, RuntimeError) and ("mismatched" in message or "size mismatch" in message):
            raise InputError(
                f"model {name!r}: its weights do not have the shapes that its config.json describes"
            ) from error
        detail = f" with its {part}" if part else ""
        if part == "config.json" and isinstance(error, TypeError | AttributeError | ArithmeticError):
            detail += ": a setting has an invalid value or type"
        raise InputError(f"model {name!r} cannot be loaded{detail}: {reason(error)}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences the warnings and progress bars of transformers; prunebench checks for the problems itself."""
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
