"""Error classes, and helpers for error messages.

`InputError`: the user's input is wrong. The command prints the message, one line, and exits with 2.
`PruningError`: the run failed. The cell is recorded as failed, and the command exits with 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import PurePath


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what is wrong, where, and how to fix it."""


class PruningError(RuntimeError):
    """A prune could not be finished, or its result breaks a promise of its method."""


class NonFiniteError(PruningError):
    """Activations, statistics or scores contain NaN or infinity; the message names the module."""


class SingularHessianError(PruningError):
    """A Hessian could not be factorized even at the highest damping; the message names the module."""


class ContractError(PruningError):
    """A pruned model breaks a promise of its method (`methods.contract`).

    Args:
        message: what is wrong, and where.
        promise: number of the broken promise in `methods.conformance.outcome.PROMISES`.
        advice: how the author of the method can fix it.
    """

    def __init__(self, message: str, promise: int = 0, advice: str = "") -> None:
        super().__init__(message)
        self.promise = promise
        self.advice = advice


class StructureError(PruningError):
    """The model's structure could not be read; the message has what was found and what was expected."""


def reason(error: BaseException, longest: int = 300) -> str:
    """Describes an error of a library in one line that is understandable without its traceback.

    Args:
        error: any error.
        longest: number of characters after which the message is cut.

    Returns:
        The message; preceded by the error's class if the message alone is a fragment, like a `KeyError`'s.
    """
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind} in {PurePath(error.filename).name}, line {error.lineno}: {error.msg}"
    message = " ".join(str(error).split())
    if not message:
        return kind
    if len(message) > longest:
        message = f"{message[:longest].rstrip()} ..."
    is_fragment = isinstance(
        error, LookupError | ArithmeticError | AttributeError | TypeError | AssertionError
    )
    is_sentence = message.count(" ") >= 3 and not is_fragment
    return message if is_sentence else f"{kind}: {message}"


def did_you_mean(word: str, known: Sequence[str], *, or_all: bool = True) -> str:
    """Returns the end of an error message that suggests the nearest known names.

    Args:
        word: the unknown name.
        known: all known names.
        or_all: whether to list all known names if none is similar.
    """
    if near := difflib.get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; known: {', '.join(known)}" if known and or_all else ""
