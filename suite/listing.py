"""What `prunebench list` shows: a name, a description, and what else is known."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any


def listing(what: str) -> list[dict[str, Any]]:
    """The rows of one list, each with `name` and `description`.

    Args:
        what: `methods`, `allocations`, `models`, `corpora` or `suites`.
    """
    return {
        "methods": _methods,
        "allocations": _allocations,
        "models": _models,
        "corpora": _corpora,
        "suites": _suites,
    }[what]()


def _methods() -> list[dict[str, Any]]:
    from methods.registry import build, method_class, names, origin, settings_of

    return [
        {
            "name": name,
            "description": _first_line(method_class(name)),
            "origin": origin(name),
            "needs_calibration": method_class(name).needs_calibration,
            "settings": settings_of(build(name)),
        }
        for name in names()
    ]


def _allocations() -> list[dict[str, Any]]:
    from methods.registry import allocations, settings_of

    return [
        {
            "name": name,
            "description": _first_line(allocations.class_of(name)),
            "origin": allocations.origin(name),
            "needs_calibration": allocations.class_of(name).needs_calibration,
            "settings": settings_of(allocations.build(name)),
        }
        for name in allocations.names()
    ]


def _models() -> list[dict[str, Any]]:
    from suite.models import BUILT_IN_MODELS

    return [dataclasses.asdict(model) for model in BUILT_IN_MODELS]


def _corpora() -> list[dict[str, Any]]:
    from suite.corpora import BUILT_IN_CORPORA

    return [dataclasses.asdict(corpus) for corpus in BUILT_IN_CORPORA]


def _suites() -> list[dict[str, Any]]:
    from suite.config import builtin_suites, load_suite

    return [
        {"name": name, "description": " ".join(load_suite(name).description.split())}
        for name in builtin_suites()
    ]


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


__all__ = ["listing"]
