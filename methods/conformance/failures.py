"""Judges how a prune failed: a defined outcome is an error of the right kind that says where."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from methods.conformance.family import layer_of, target_name
from methods.conformance.outcome import BrokenPromiseError
from methods.conformance.situations import Expectation
from methods.errors import InputError, PruningError

_REFUSE = (
    "Refuse before anything runs, with an InputError: methods.with_calibration(name, calibration) "
    "and methods.read_decoder(model).check_pattern(pattern) do."
)


def check_one_line(error: InputError) -> str:
    """The line of an `InputError`."""
    line = str(error).strip()
    if "\n" in line or not line:
        raise BrokenPromiseError(
            5, f"the InputError is not one line: {line!r}", "Say what, where and how to mend it in one."
        )
    return line


def names_target(line: str, masks: Iterable[str]) -> bool:
    """Whether one of the targets is named."""
    return any(target_name(mask) in line for mask in masks)


def unnamed(line: str) -> BrokenPromiseError:
    """A refusal because M does not divide says of what."""
    return BrokenPromiseError(
        5, f"the InputError names no module whose inputs M does not divide: {line!r}", _REFUSE
    )


def check_failure(
    error: PruningError, expected: Expectation, named: str | None, masks: Iterable[str]
) -> None:
    """A `PruningError` is what the situation calls for, and says where.

    Args:
        error: what the prune raised.
        expected: what has to come of it.
        named: the decoder layer that has to be named; any where None.
        masks: mask names of all weights that may be pruned.
    """
    if expected in (Expectation.FAILS, Expectation.HOLDS_OR_FAILS):
        check_names_module(error, named, masks)
        return
    if expected is Expectation.REFUSES:
        raise BrokenPromiseError(
            5,
            f"a {type(error).__name__} came where an InputError was due: {_one_line(error)}",
            _REFUSE,
        )
    raise BrokenPromiseError(
        5,
        f"prune() gave up with {type(error).__name__}: {_one_line(error)}",
        "This can be pruned; where the method really cannot, an InputError of one line says so.",
    )


def check_names_module(error: Exception, named: str | None, masks: Iterable[str]) -> None:
    """`error` names the decoder layer `named` or something inside it; any decoder layer where None."""
    wanted = {layer_of(mask) for mask in masks} if named is None else {named}
    if not any(re.search(rf"{re.escape(name)}(?!\d)", str(error)) for name in wanted):
        raise BrokenPromiseError(
            5,
            f"the {type(error).__name__} does not say where{f' ({named}...)' if named else ''}: "
            f"{_one_line(error)!r}",
            "Begin the message with the target's dotted name.",
        )


def silence(expected: Expectation) -> BrokenPromiseError:
    """The prune went through where it had to end."""
    if expected is Expectation.ENDS:
        return BrokenPromiseError(
            5, "an exception raised by on_layer was swallowed", "Let it through: it ends the prune."
        )
    if expected is Expectation.REFUSES:
        return BrokenPromiseError(5, "prune() went on", _REFUSE)
    return BrokenPromiseError(
        5,
        "prune() said nothing",
        "Call methods.require_finite(values, target name, what they are) on weights, activations "
        "and scores: comparing with NaN is False without a word.",
    )


def crash(error: Exception, expected: Expectation, cls: type) -> BrokenPromiseError:
    """An exception of a kind that the interface does not know, with the place where it was raised."""
    advice = (
        "What the user can mend is an InputError, what went wrong is a PruningError that names the module "
        "(methods.InputError and its kin)."
    )
    if expected is Expectation.REFUSES:
        advice = _REFUSE
    elif re.search("half|float16", str(error), re.IGNORECASE):
        advice = "Statistics and scores are fp32 whatever the model is: score target.weight.float()."
    return BrokenPromiseError(
        5,
        f"prune() raised {type(error).__name__}: {_one_line(error)} ({_place(error, cls)})",
        advice,
    )


def _place(error: Exception, cls: type) -> str:
    """The last frame in the file of the method's class, or the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    home = getattr(sys.modules.get(cls.__module__), "__file__", None)
    frame = next((frame for frame in reversed(frames) if frame.filename == home), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: {frame.line}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


__all__ = [
    "check_failure",
    "check_names_module",
    "check_one_line",
    "crash",
    "names_target",
    "silence",
    "unnamed",
]
