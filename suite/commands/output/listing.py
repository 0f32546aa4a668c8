"""The rows that `prunebench list` shows: a name, a description, and further properties."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from methods.errors import InputError

if TYPE_CHECKING:
    from methods.registry import Registry


def listing(what: str) -> list[dict[str, Any]]:
    """Returns the rows of one list, each with `name` and `description`.

    Args:
        what: `methods`, `steps`, `allocations`, `models`, `corpora`, `tasks` or `suites`.
    """
    return {
        "methods": _methods,
        "steps": _steps,
        "allocations": _allocations,
        "models": _models,
        "corpora": _corpora,
        "tasks": _tasks,
        "suites": _suites,
    }[what]()


def _methods() -> list[dict[str, Any]]:
    from methods.registry import methods

    return [_described(methods, name) for name in methods.names()]


def _steps() -> list[dict[str, Any]]:
    """Returns every step; descriptions begin with the part that the step plays in a recipe."""
    from methods.registry import steps

    rows = [_described(steps, name) for name in steps.names()]
    for row in rows:
        if "part" in row:
            row["description"] = f"{row['part']}: {row['description']}"
    return rows


def _allocations() -> list[dict[str, Any]]:
    from methods.registry import allocations

    return [_described(allocations, name) for name in allocations.names()]


def _described(registry: Registry[Any], name: str) -> dict[str, Any]:
    """Returns the row of a method, step or allocation; if it cannot be built, its description says why."""
    from methods.registry import settings_of

    row = {"name": name, "origin": registry.origin(name)}
    try:
        built = registry.build(name)
    except InputError as error:
        return {**row, "description": f"cannot be used: {error}", "needs_calibration": None, "settings": {}}
    return {
        **row,
        "description": _first_line(type(built)),
        # Steps have `reads_inputs` instead.
        "needs_calibration": getattr(built, "needs_calibration", getattr(built, "reads_inputs", None)),
        "settings": settings_of(built),
        **({"part": built.part} if hasattr(built, "part") else {}),
    }


def _models() -> list[dict[str, Any]]:
    from suite.models.source import BUILT_IN_MODELS

    return [dataclasses.asdict(model) for model in BUILT_IN_MODELS]


def _corpora() -> list[dict[str, Any]]:
    from suite.data.corpora import BUILT_IN_CORPORA

    return [dataclasses.asdict(corpus) for corpus in BUILT_IN_CORPORA]


def _tasks() -> list[dict[str, Any]]:
    from suite.evaluation.lm_eval_tasks.names import NAMED_SETS
    from suite.evaluation.offline_tasks.catalogue import OFFLINE_TASK_DESCRIPTIONS

    rows = [{"name": name, "description": text} for name, text in OFFLINE_TASK_DESCRIPTIONS.items()]
    rows += [
        {"name": name, "description": f"a set: {', '.join(names)}{_REACH.get(name, '')}"}
        for name, names in NAMED_SETS.items()
    ]
    return [*rows, {"name": "...", "description": "every task and group of lm-eval, by its name there"}]


_REACH = {"paper7": " (their data sets come from the hub)"}


def _suites() -> list[dict[str, Any]]:
    from suite.planning.suite_cells import builtin_suites, load_suite

    return [
        {"name": name, "description": " ".join(load_suite(name).description.split())}
        for name in builtin_suites()
    ]


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


__all__ = ["listing"]
