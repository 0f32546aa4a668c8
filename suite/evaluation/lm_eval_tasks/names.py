"""Checks the task names in a suite or on the command line, without importing lm-eval as far as possible."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import InputError, did_you_mean
from suite.evaluation.offline_tasks.catalogue import OFFLINE_TASKS, TASKS_FOLDER

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

NAMED_SETS = {
    "offline": OFFLINE_TASKS,
    "paper7": (
        *("boolq", "rte", "hellaswag", "winogrande"),
        *("arc_easy", "arc_challenge", "openbookqa"),
    ),
}
"""Set name -> its tasks. `paper7`, the tasks that papers report, needs the hub or its cache."""


def expand_sets(names: Iterable[str]) -> list[str]:
    """Returns the names with each set replaced by its tasks."""
    return [task for name in names for task in NAMED_SETS.get(name, (name,))]


def check_folder(folder: str | None) -> None:
    """Raises `InputError` if the user's folder of tasks does not exist."""
    if folder is not None and not (folder and Path(folder).expanduser().is_dir()):
        raise InputError(f"task folder {folder!r} does not exist")


def check_task(name: str, folder: str | None = None) -> None:
    """Checks a task's name before anything is fetched.

    Args:
        name: a task, group or tag, but not a set (see `expand_sets`).
        folder: the folder of the user's own tasks, searched first.

    Raises:
        InputError: there is no such task (the message suggests similar names), or no such folder.
    """
    if name in OFFLINE_TASKS:
        return
    check_folder(folder)
    manager = task_manager(name, folder)
    if name not in manager.all_tasks:
        if folder is not None:
            _check_files(Path(folder).expanduser())
        known = sorted({*NAMED_SETS, *OFFLINE_TASKS, *manager.all_tasks})
        near = did_you_mean(name, known, or_all=False)
        raise InputError(f"unknown task {name!r}{near} (without a hub: {', '.join(OFFLINE_TASKS)})")


def task_manager(name: str, folder: str | None = None) -> TaskManager:
    """Returns an index of tasks with `name`: the offline ones, the user's, or all of lm-eval's (slow)."""
    if name in OFFLINE_TASKS:
        return _manager(None, everything=False)
    if folder is not None:
        manager = _manager(folder, everything=False)
        if name in manager.all_tasks:
            return manager
    return _manager(folder, everything=True)


def _check_files(folder: Path) -> None:
    """Raises `InputError` naming a task file that lm-eval skipped because it cannot be read."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False, recursive=False)
        except Exception as error:  # YAML errors, and errors of any kind from missing files
            raise InputError(
                f"task file {str(path)!r} cannot be read: {' '.join(str(error).split())}"
            ) from error


@lru_cache(maxsize=4)
def _manager(folder: str | None, *, everything: bool) -> TaskManager:
    from lm_eval.tasks import TaskManager

    from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval

    folders = [str(TASKS_FOLDER)] + ([str(Path(folder).expanduser().resolve())] if folder else [])
    with quiet_lm_eval():
        return TaskManager(include_path=folders, include_defaults=everything)


__all__ = ["NAMED_SETS", "check_folder", "check_task", "expand_sets", "task_manager"]
