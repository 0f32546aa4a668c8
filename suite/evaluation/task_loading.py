"""Tasks with their questions, loaded before the first cell runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from suite.evaluation.quiet import quiet_lm_eval
from suite.evaluation.task_names import check_task, task_manager
from suite.tasks import OFFLINE_TASKS

if TYPE_CHECKING:
    from suite.cell import TaskSpec

FEWSHOT_SEED = 1234
"""Which examples are drawn, where a task draws any: lm-eval's own default."""


@dataclass(frozen=True)
class LoadedTask:
    """What a `TaskSpec` names, ready to be asked.

    Attributes:
        spec: the name, the number of examples and the limit.
        tree: lm-eval's tasks and groups, as its `evaluate` takes them.
        n_items: questions that will be asked.
        docs_digests: task -> SHA-256 over the data of its questions.
    """

    spec: TaskSpec
    tree: Any
    n_items: int
    docs_digests: Mapping[str, str]


def load_task(spec: TaskSpec) -> LoadedTask:
    """Loads the questions of a task, or of all tasks of a group.

    Raises:
        InputError: there is no such task, or its data set is neither cached nor reachable.
        AssetError: an offline corpus could not be fetched.
    """
    check_task(spec.name, spec.folder)
    manager = task_manager(spec.name, spec.folder)
    with quiet_lm_eval(), _one_line(spec.name), _hub_or_cache(spec.name):
        tree = manager.load([spec.name])
        hashes: dict[str, list[str]] = {}
        for name, task in tree["tasks"].items():
            _set_fewshot(task, spec)
            hashes[name] = [_doc_hash(doc) for doc in islice(task.eval_docs, spec.limit)]
    n_items = sum(map(len, hashes.values()))
    return LoadedTask(spec, tree, n_items, {name: docs_digest(found) for name, found in hashes.items()})


def docs_digest(doc_hashes: Iterable[str]) -> str:
    """SHA-256 over lm-eval's hashes of questions' data, in order."""
    return hashlib.sha256("\n".join(doc_hashes).encode()).hexdigest()


def _doc_hash(doc: Any) -> str:
    """As lm-eval makes the `doc_hash` of its samples."""
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    hashed: str = hash_string(text)
    return hashed


def _set_fewshot(task: Any, spec: TaskSpec) -> None:
    """Gives a task the number of examples that was asked for, as lm-eval's `simple_evaluate` does."""
    own = task.get_config("num_fewshot")
    if spec.num_fewshot is not None:
        if own == 0 and spec.num_fewshot:
            raise InputError(f"task {spec.name!r} takes no examples (num_fewshot is 0 in its own file)")
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


@contextmanager
def _hub_or_cache(name: str) -> Iterator[None]:
    from suite.hub import from_the_cache, hub_answers

    if name in OFFLINE_TASKS:
        yield
        return
    with nullcontext() if hub_answers() else from_the_cache():
        yield


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turns whatever loading somebody's task raises into one line for the user."""
    from suite.cache import AssetError
    from suite.hub import hub_answers

    try:
        yield
    except (InputError, AssetError):
        raise
    except Exception as error:  # task files hold code of their own, which may raise anything
        first = next(iter(str(error).splitlines()), type(error).__name__)
        if not hub_answers():
            raise InputError(
                f"task {name!r} needs its data set from the hub, which cannot be reached, and it is not in "
                f"the cache on this machine; these work without: {', '.join(OFFLINE_TASKS)}"
            ) from error
        raise InputError(f"task {name!r} cannot be loaded: {first}") from error


__all__ = ["LoadedTask", "docs_digest", "load_task"]
