"""Finds the method to check: a registered name, a recipe, or a class in a module of the user."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from methods.base import PruningMethod
from methods.errors import InputError, did_you_mean
from methods.registry import Registry, build, is_recipe, method_class
from suite.planning.method_of_cell import pruned_by

_ATTRIBUTES: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "version": (int,),
    "needs_calibration": (bool, property),
    "reconstructs": (bool, property),
}
_FUNCTIONS = ("comparison_group", "prune")


def load_method(spec: str, settings: Mapping[str, Any]) -> PruningMethod:
    """Returns the method that `spec` names, with its settings.

    Args:
        spec: a registered name, a recipe, or `module:Class`; the module may be in the current folder.
        settings: settings of the method.

    Raises:
        InputError: it cannot be found, imported or built, or lacks a part of the `PruningMethod` interface.
    """
    if is_recipe(spec):
        method, allocation = pruned_by(spec, settings, None, ())
        if allocation is not None:
            raise InputError(
                f"the contract does not cover allocations: remove {allocation.name!r} from the recipe"
            )
        return method
    if ":" not in spec:
        _require_interface(spec, method_class(spec))
        return build(spec, settings)
    cls = _class(spec)
    _require_interface(spec, cls)
    here: Registry[PruningMethod] = Registry("method", "prunebench.methods", {spec: spec})
    try:
        return here.build(spec, settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{spec} cannot be built: {_described(error)}") from error


def _class(spec: str) -> type:
    name, _, attribute = spec.partition(":")
    if name.endswith(".py") or "/" in name or not name or not attribute:
        example = f"{Path(name).stem or 'my_method'}:{attribute or 'MyMethod'}"
        raise InputError(f"{spec}: write it as module:Class, such as {example}")
    module = _module(spec, name)
    found: object = getattr(module, attribute, None)
    if found is None:
        known = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise InputError(f"{spec}: {name} has no class {attribute!r}{did_you_mean(attribute, known)}")
    if not inspect.isclass(found):
        raise InputError(f"{spec}: is of type {type(found).__name__}, not a class; give the class itself")
    return found


def _module(spec: str, name: str) -> ModuleType:
    # The current folder is not on the import path of an installed command.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise InputError(
                f"{spec}: no module {missing!r} in {Path.cwd().name}/ (the current folder) or among the "
                "installed packages"
            ) from error
        raise InputError(f"{spec}: {name} imports {missing!r}, which is not installed") from error
    except Exception as error:
        raise InputError(f"{spec}: {name} cannot be imported: {_described(error)}") from error


def _require_interface(spec: str, cls: type) -> None:
    """Raises `InputError` that names the first part of the `PruningMethod` interface that `cls` lacks."""
    for attribute, kinds in _ATTRIBUTES.items():
        if not hasattr(cls, attribute):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{spec} lacks {attribute!r} ({expected}): see methods.PruningMethod")
        if not isinstance(getattr(cls, attribute), kinds):
            value = getattr(cls, attribute)
            raise InputError(f"{spec}: {attribute} is {value!r}; it has to be a {kinds[0].__name__}")
    for function in _FUNCTIONS:
        if not callable(getattr(cls, function, None)):
            raise InputError(f"{spec} lacks {function}(): see methods.PruningMethod")
    if not dataclasses.is_dataclass(cls) or not cast(Any, cls).__dataclass_params__.frozen:
        raise InputError(
            f"{spec} is not a frozen dataclass: write @dataclass(frozen=True) above it, so that its fields "
            "can be set and recorded"
        )
    _require_signature(spec, "prune", cls, ("model", "pattern", "calibration"), ("placement", "on_layer"))
    _require_signature(spec, "comparison_group", cls, ("shape", "pattern"), ())


def _require_signature(
    spec: str, function: str, cls: type, positional: tuple[str, ...], keywords: tuple[str, ...]
) -> None:
    try:
        inspect.signature(getattr(cls, function)).bind(cls, *positional, **dict.fromkeys(keywords))
    except TypeError as error:
        wanted = ", ".join([*positional, *(["*", *keywords] if keywords else [])])
        raise InputError(f"{spec}: {function}({wanted}) cannot be called like this: {error}") from error


def _described(error: Exception) -> str:
    """Describes an error with the file and line that raised it."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


__all__ = ["load_method"]
