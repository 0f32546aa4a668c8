"""What can go wrong, sorted by whose fault it is.

`InputError` is the user's: the command prints its one line and exits with 2.
`PruningError` is the run's: the cell is recorded as failed, and the command exits with 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import PurePath


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what, where, and how to mend it."""


class PruningError(RuntimeError):
    """A prune could not be finished, or did not keep what its method promises."""


class NonFiniteError(PruningError):
    """Activations, statistics or scores hold NaN or infinity; the message names the module."""


class SingularHessianError(PruningError):
    """A Hessian could not be factorized even at the highest damping; the message names the module."""


class ContractError(PruningError):
    """A pruned model breaks a promise of its method (`methods.contract`).

    Args:
        message: what was seen, and where.
        promise: its number in `methods.conformance.outcome.PROMISES`.
        advice: what the author of the method can do about it.
    """

    def __init__(self, message: str, promise: int = 0, advice: str = "") -> None:
        super().__init__(message)
        self.promise = promise
        self.advice = advice


class StructureError(PruningError):
    """The model's structure could not be read: what was found and what was expected."""


def reason(error: BaseException, longest: int = 300) -> str:
    """What an error of a library says, in one line that can be understood without its traceback.

    Args:
        error: any error.
        longest: characters after which its message is cut.

    Returns:
        Its message; with its class in front where the message alone is a fragment, as a `KeyError`'s is.
    """
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind} in {PurePath(error.filename).name}, line {error.lineno}: {error.msg}"
    said = " ".join(str(error).split())
    if not said:
        return kind
    if len(said) > longest:
        said = f"{said[:longest].rstrip()} ..."
    is_fragment = isinstance(
        error, LookupError | ArithmeticError | AttributeError | TypeError | AssertionError
    )
    is_sentence = said.count(" ") >= 3 and not is_fragment
    return said if is_sentence else f"{kind}: {said}"


def did_you_mean(word: str, known: Sequence[str], *, or_all: bool = True) -> str:
    """The tail of an error message: the nearest known names.

    Args:
        word: what was asked for.
        known: what there is.
        or_all: whether all of them are named where none is near.
    """
    if near := difflib.get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; known: {', '.join(known)}" if known and or_all else ""
