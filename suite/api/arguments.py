"""Checks the arguments of the Python API against their annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

from methods.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
LONGEST = 60
"""Number of characters of a wrong value that a message shows."""


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function so that a wrong argument raises a one-line `InputError` before the function runs.

    No value is converted: `"128"` is not accepted as a number, nor `"no"` as False.
    """
    call = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(function)
    names = list(signature(function).parameters)

    @wraps(function)
    def checked_call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except ValidationError as error:
            if error.title != function.__name__:  # raised inside the function, not by its arguments
                raise
            raise InputError(f"{function.__name__}: {_in_one_line(names, error)}") from None

    return checked_call


def _in_one_line(names: Sequence[str], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = first["loc"][0]
    argument = names[place] if isinstance(place, int) and place < len(names) else place
    message = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    given = " ".join(repr(first["input"]).split())
    shown = given if len(given) <= LONGEST else f"{given[:LONGEST]}..."
    missing = first["type"] in ("missing_argument", "unexpected_keyword_argument")
    return f"{argument}: {message}" + ("" if missing else f", not {shown}")


__all__ = ["checked"]
