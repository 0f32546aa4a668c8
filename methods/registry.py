"""Registries of methods, recipe steps and allocations: built-in ones, and those of other packages."""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from methods.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from methods.allocation import Allocation
    from methods.base import PruningMethod
    from methods.engine.steps import Step

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Finds and builds the classes of one kind, by name.

    Attributes:
        kind: the kind of the classes, as messages call it.
        group: the entry-point group under which other packages register theirs.
        built_in: name -> `module:class`.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def names(self) -> list[str]:
        """Returns all registered names: the built-in ones first, then those of other packages."""
        return [*self.built_in, *sorted(self._third_party())]

    def origin(self, name: str) -> str:
        """Returns `built-in`, or the distribution that registered `name`."""
        if name in self.built_in:
            return "built-in"
        distribution = self._third_party()[name].dist
        return distribution.name if distribution is not None else "unknown"

    def class_of(self, name: str) -> type[T]:
        """Returns the class registered under `name`.

        Raises:
            InputError: the name is unknown (the message has the nearest names), or its package cannot be
                imported.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return cast("type[T]", getattr(importlib.import_module(module), attribute))
        entry = self._third_party().get(name)
        if entry is None:
            raise InputError(f"unknown {self.kind} {name!r}{did_you_mean(name, self.names())}")
        try:
            return cast("type[T]", entry.load())
        except Exception as error:  # another package's code, which may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{self.kind} {name!r} ({entry.value}) cannot be imported: {reason}") from error

    def build(self, name: str, settings: Mapping[str, Any] | None = None) -> T:
        """Creates an instance of `name`, with `settings` in place of its defaults.

        Raises:
            InputError: unknown name, unknown setting (with the nearest names), or a value of the wrong type
                or range.
        """
        cls = self.class_of(name)
        if not dataclasses.is_dataclass(cls):
            raise InputError(f"{self.kind} {name!r} ({cls.__qualname__}) is not a frozen dataclass")
        fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for key, value in (settings or {}).items():
            if key not in fields:
                near = did_you_mean(key, list(fields))
                raise InputError(f"{self.kind} {name!r} has no setting {key!r}{near}")
            values[key] = _checked(f"{self.kind} {name!r}", key, value, hints[key])
        for key, field in fields.items():
            no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if key not in values and no_default:
                raise InputError(f"{self.kind} {name!r} needs the setting {key!r}")
        return cls(**values)

    def _third_party(self) -> dict[str, EntryPoint]:
        return {name: entry for name, entry in _registered(self.group).items() if name not in self.built_in}


methods: Registry[PruningMethod] = Registry(
    "method",
    "prunebench.methods",
    {
        "magnitude": "methods.scores.magnitude:Magnitude",
        "wanda": "methods.scores.wanda:Wanda",
        "sparsegpt": "methods.scores.sparsegpt:SparseGPT",
        "llm-barber": "methods.llm_barber:LLMBarber",
        "ria": "methods.scores.ria:RIA",
        "dsnot": "methods.dsnot:DSnoT",
        "admm": "methods.scores.admm:ADMM",
        "alps": "methods.scores.alps:ALPS",
        "wanda-rgs": "methods.scores.wanda_rgs:WandaRGS",
        "recipe": "methods.recipe:Recipe",
    },
)

steps: Registry[Step] = Registry(
    "step",
    "prunebench.steps",
    {
        "magnitude": "methods.scores.magnitude:Magnitude",
        "wanda": "methods.scores.wanda:Wanda",
        "ria": "methods.scores.ria:RIA",
        "sparsegpt": "methods.scores.sparsegpt:SparseGPT",
        "admm": "methods.scores.admm:ADMM",
        "alps": "methods.scores.alps:ALPS",
        "wanda-rgs": "methods.scores.wanda_rgs:WandaRGS",
        "swaps": "methods.refinements.swaps:Swaps",
        "dsnot": "methods.refinements.dsnot_swaps:DSnoTSwaps",
        "llm-barber": "methods.refinements.barber_swaps:BarberRebuild",
        "refit": "methods.updates.refit:Refit",
        "admm-update": "methods.updates.admm:ADMMUpdate",
        "sparsegpt-update": "methods.updates.sparsegpt_columns:SparseGPTUpdate",
    },
)
"""The steps of recipes; every score can also be used alone, as a method."""

allocations: Registry[Allocation] = Registry(
    "allocation",
    "prunebench.allocations",
    {
        "owl": "methods.allocations.owl:OWL",
        "alphapruning": "methods.allocations.alphapruning:AlphaPruning",
        "atp": "methods.allocations.atp:ATP",
    },
)
"""Ways of spreading a model's sparsity over its layers."""

# Shortcuts for methods, which nearly every caller needs.
ENTRY_POINT_GROUP = methods.group
names = methods.names
origin = methods.origin
method_class = methods.class_of
build = methods.build


def is_recipe(text: str) -> bool:
    """Whether a text is a recipe (`methods.recipe`): has its syntax, or names a step that is not a method."""
    return "|" in text or "(" in text or (text in steps.names() and text not in methods.names())


def settings_of(built: PruningMethod | Allocation | Step) -> dict[str, Any]:
    """Returns every hyper-parameter of a method, allocation or step as a plain value, including defaults."""
    return {
        field.name: _plain(getattr(built, field.name))
        for field in dataclasses.fields(cast(Any, built))
        if field.init
    }


@lru_cache
def _registered(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _checked(owner: str, key: str, value: Any, hint: Any) -> Any:
    """Returns `value` if it fits the type annotation of the setting; converts an int to float if needed."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
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
    raise InputError(f"{owner}: setting {key} cannot be {value!r}; it takes {_in_words(hint)}")


def _is_union(hint: Any) -> bool:
    # `int | str` is a `types.UnionType`, but a union with a Literal is a `typing.Union`.
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _in_words(hint: Any) -> str:
    if _is_union(hint):
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


__all__ = [
    "ENTRY_POINT_GROUP",
    "Registry",
    "allocations",
    "build",
    "is_recipe",
    "method_class",
    "names",
    "origin",
    "settings_of",
    "steps",
]
