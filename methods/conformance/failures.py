"""Checks how a prune failed: it has to raise an error of the right class that names the module."""

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
    "Raise an InputError before anything runs: methods.with_calibration(name, calibration) "
    "and methods.read_decoder(model).check_pattern(pattern) do."
)


def check_one_line(error: InputError) -> str:
    """Returns the message of an `InputError`; raises if it is not exactly one line."""
    line = str(error).strip()
    if "\n" in line or not line:
        raise BrokenPromiseError(
            5,
            f"the InputError is not one line: {line!r}",
            "Write what is wrong, where, and how to fix it in one line.",
        )
    return line


def names_target(line: str, masks: Iterable[str]) -> bool:
    """Whether a message names one of the targets."""
    return any(target_name(mask) in line for mask in masks)


def unnamed(line: str) -> BrokenPromiseError:
    """Returns the error for a refusal that does not name the module whose inputs M does not divide."""
    return BrokenPromiseError(
        5, f"the InputError names no module whose inputs M does not divide: {line!r}", _REFUSE
    )


def check_failure(
    error: PruningError, expected: Expectation, named: str | None, masks: Iterable[str]
) -> None:
    """Raises unless a `PruningError` is an expected outcome and names the module.

    Args:
        error: the error that the prune raised.
        expected: the expected outcome.
        named: the decoder layer that has to be named; None = any.
        masks: mask names of all weights that may be pruned.
    """
    if expected in (Expectation.FAILS, Expectation.HOLDS_OR_FAILS):
        check_names_module(error, named, masks)
        return
    if expected is Expectation.REFUSES:
        raise BrokenPromiseError(
            5,
            f"prune() raised {type(error).__name__}, expected an InputError: {_one_line(error)}",
            _REFUSE,
        )
    raise BrokenPromiseError(
        5,
        f"prune() failed with {type(error).__name__}: {_one_line(error)}",
        "This can be pruned; if the method does not support it, raise an InputError of one line.",
    )


def check_names_module(error: Exception, named: str | None, masks: Iterable[str]) -> None:
    """Raises unless `error` names the decoder layer `named` (None = any) or a module inside it."""
    wanted = {layer_of(mask) for mask in masks} if named is None else {named}
    if not any(re.search(rf"{re.escape(name)}(?!\d)", str(error)) for name in wanted):
        raise BrokenPromiseError(
            5,
            f"the {type(error).__name__} does not name the module{f' ({named}...)' if named else ''}: "
            f"{_one_line(error)!r}",
            "Begin the message with the target's dotted name.",
        )


def silence(expected: Expectation) -> BrokenPromiseError:
    """Returns the error for a prune that succeeded although it had to fail."""
    if expected is Expectation.ENDS:
        return BrokenPromiseError(
            5, "an exception raised by on_layer was swallowed", "Do not catch it: it ends the prune."
        )
    if expected is Expectation.REFUSES:
        return BrokenPromiseError(5, "prune() raised no InputError", _REFUSE)
    return BrokenPromiseError(
        5,
        "prune() raised no error",
        "Call methods.require_finite(values, target name, what they are) on weights, activations "
        "and scores: a comparison with NaN is False and raises nothing.",
    )


def crash(error: Exception, expected: Expectation, cls: type) -> BrokenPromiseError:
    """Returns the error for an exception of an undefined class, with the line of code that raised it."""
    advice = (
        "Raise methods.InputError if the user can fix it, and methods.PruningError with the name of the "
        "module if the prune failed."
    )
    if expected is Expectation.REFUSES:
        advice = _REFUSE
    elif re.search("half|float16", str(error), re.IGNORECASE):
        advice = "Compute statistics and scores in fp32 for every dtype of the model: target.weight.float()."
    return BrokenPromiseError(
        5,
        f"prune() raised {type(error).__name__}: {_one_line(error)} ({_place(error, cls)})",
        advice,
    )


def _place(error: Exception, cls: type) -> str:
    """Describes the last frame in the file of the method's class, or the last frame if there is none."""
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
