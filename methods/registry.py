"""Method names -> method classes. Built-in ones are named here; others join by an entry point."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from methods.errors import InputError

if TYPE_CHECKING:
    from methods.base import PruningMethod

ENTRY_POINT_GROUP = "prunebench.methods"

_BUILT_IN = {
    "magnitude": "methods.magnitude:Magnitude",
    "wanda": "methods.wanda:Wanda",
    "sparsegpt": "methods.sparsegpt:SparseGPT",
    "llm-barber": "methods.llm_barber:LLMBarber",
}


def names() -> list[str]:
    """All registered method names: the built-in ones first, then those of other packages."""
    return [*_BUILT_IN, *sorted(_third_party())]


def origin(name: str) -> str:
    """Where a method comes from: `built-in`, or the distribution that registered it."""
    if name in _BUILT_IN:
        return "built-in"
    distribution = _third_party()[name].dist
    return distribution.name if distribution is not None else "unknown"


def method_class(name: str) -> type[PruningMethod]:
    """The class registered under `name`.

    Raises:
        InputError: there is none (the message has the nearest names), or its package cannot be imported.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast("type[PruningMethod]", getattr(importlib.import_module(module), attribute))
    entry = _third_party().get(name)
    if entry is None:
        raise InputError(f"unknown method {name!r}{did_you_mean(name, names())}")
    try:
        return cast("type[PruningMethod]", entry.load())
    except (ImportError, AttributeError) as error:
        raise InputError(f"method {name!r} ({entry.value}) cannot be imported: {error}") from error


def build(name: str, settings: Mapping[str, Any] | None = None) -> PruningMethod:
    """An instance of method `name` with `settings` in place of its defaults.

    Raises:
        InputError: unknown method, unknown setting (with the nearest names), or a value of the wrong type
            or range.
    """
    cls = method_class(name)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            raise InputError(f"method {name!r} has no setting {key!r}{did_you_mean(key, list(fields))}")
        values[key] = _checked(name, key, value, hints[key])
    return cls(**values)


def settings_of(method: PruningMethod) -> dict[str, Any]:
    """Every hyper-parameter of `method` as plain values, defaults written out."""
    return {
        field.name: _plain(getattr(method, field.name))
        for field in dataclasses.fields(cast(Any, method))
        if field.init
    }


def did_you_mean(word: str, known: list[str]) -> str:
    """The tail of an error message: the nearest known names, or all of them if none is near."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(repr(n) for n in near)}?"
    return f"; known: {', '.join(known)}" if known else ""


@lru_cache(maxsize=1)
def _third_party() -> dict[str, EntryPoint]:
    return {
        entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name not in _BUILT_IN
    }


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _checked(method: str, key: str, value: Any, hint: Any) -> Any:
    """`value` if it fits the annotation of the setting; an int where a float is wanted becomes one."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        base = typing.get_origin(option) or option
        if base is typing.Literal:
            if value in typing.get_args(option):
                return value
        elif base is float:
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
                with suppress(OverflowError):
                    return float(value)
        elif base is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        elif isinstance(value, base):
            return value
    raise InputError(f"method {method!r}: setting {key} cannot be {value!r}; it takes {_in_words(hint)}")


def _in_words(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_in_words(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(repr(option) for option in typing.get_args(hint))
    named = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        type(None): "nothing",
    }
    return named.get(hint, "a table of settings")


__all__ = ["ENTRY_POINT_GROUP", "build", "did_you_mean", "method_class", "names", "origin", "settings_of"]
