"""Loads tasks with their questions before the first cell runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, reason
from suite.evaluation.lm_eval_tasks.labels import check_labels, checked_examples, explain_build_errors
from suite.evaluation.lm_eval_tasks.names import check_task, task_manager
from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval
from suite.evaluation.offline_tasks.catalogue import OFFLINE_TASKS

if TYPE_CHECKING:
    from suite.cell import TaskSpec
    from suite.evaluation.lm_eval_tasks.scoring_model import Prepared

FEWSHOT_SEED = 1234
"""Seed for drawing few-shot examples: lm-eval's default."""


@dataclass(frozen=True)
class LoadedTask:
    """The tasks of a `TaskSpec`, ready to run on one model after another.

    Attributes:
        spec: the name, the number of examples and the limit.
        tree: lm-eval's tasks and groups in the form that its `evaluate` takes, with their requests built.
        n_requests: number of requests to the model; a question may have several.
        digests: protocol of a task -> SHA-256 over its definition and the data of its questions.
        prepared: a tokenizer's fingerprint -> its tokenized requests, stored by `prepare_task` for all models
            with that tokenizer.
    """

    spec: TaskSpec
    tree: Any
    n_requests: int
    digests: Mapping[str, str]
    prepared: MutableMapping[str, Prepared] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )


def load_task(spec: TaskSpec) -> LoadedTask:
    """Loads the questions of a task, or of all tasks of a group.

    Raises:
        InputError: there is no such task, its data set is neither cached nor reachable, or the task is not
            supported (it runs code, needs images, has too few examples, or a label without an option).
        AssetError: an offline corpus could not be fetched.
    """
    check_task(spec.name, spec.folder)
    manager = task_manager(spec.name, spec.folder)
    n_requests, digests = 0, {}
    with quiet_lm_eval(), _one_line(spec.name), _hub_or_cache(spec.name):
        with explain_build_errors():
            tree = manager.load([spec.name])
        for name, task in tree["tasks"].items():
            _check_kind(name, task)
            _set_fewshot(task, spec)
            check_labels(name, task, spec.limit)
            with checked_examples(name, task):
                task.build_all_requests(limit=spec.limit, rank=0, world_size=1)
            _keep_requests(task)
            n_requests += len(task.instances)
            protocol = f"{name}-{task.get_config('num_fewshot')}shot"
            digests[protocol] = _digest(task, islice(task.eval_docs, spec.limit))
    return LoadedTask(spec, tree, n_requests, digests)


def _keep_requests(task: Any) -> None:
    """Keeps lm-eval's `evaluate` from rebuilding the requests for every model.

    Templates are filled in and examples are drawn once; between models only the answers are cleared.
    """

    def clear_answers(**settings: object) -> None:
        for request in task.instances:
            request.resps, request.filtered_resps = [], {}

    task.build_all_requests = clear_answers


def _digest(task: Any, docs: Iterable[Any]) -> str:
    """Returns the SHA-256 over a task's definition (functions by their source) and its questions' data."""
    from lm_eval.utils import handle_non_serializable

    digest = hashlib.sha256()
    for part in (_definition(task), *docs):
        text = json.dumps(part, default=handle_non_serializable, ensure_ascii=False, sort_keys=True)
        # The text of a function without source contains its memory address: remove it.
        digest.update(f"{re.sub(r' at 0x[0-9a-f]+', '', text)}\n".encode())
    return digest.hexdigest()


def _definition(task: Any) -> dict[str, Any]:
    """Returns a task's definition without the path of its file, which differs between checkouts."""
    config = dict(task.dump_config())
    metadata = config.get("metadata")
    if isinstance(metadata, dict):
        config["metadata"] = {key: value for key, value in metadata.items() if key != "config_source"}
    return config


def _check_kind(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise InputError(f"task {name!r} runs code written by the model, which prunebench does not support")
    if getattr(task, "MULTIMODAL", False):
        raise InputError(f"task {name!r} needs more than text")


def _set_fewshot(task: Any, spec: TaskSpec) -> None:
    """Sets a task's number of few-shot examples like lm-eval's `simple_evaluate`."""
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
    from suite.data.hub import from_the_cache, hub_answers

    if name in OFFLINE_TASKS:
        yield
        return
    with nullcontext() if hub_answers() else from_the_cache():
        yield


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turns any error from loading a task into one line for the user."""
    from suite.data.hub import hub_answers
    from suite.machine.cache import AssetError

    try:
        yield
    except (InputError, AssetError):
        raise
    except Exception as error:  # task files may contain code that raises anything
        if _is_unreachable(error) and not hub_answers():
            raise InputError(
                f"task {name!r} needs its data set from the hub, which cannot be reached, and it is not in "
                f"the cache on this machine; these tasks work offline: {', '.join(OFFLINE_TASKS)}"
            ) from error
        raise InputError(f"task {name!r} cannot be loaded: {reason(error)}") from error


def _is_unreachable(error: BaseException) -> bool:
    """Whether an error means that a data set was found neither on the hub nor in its cache."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    return isinstance(
        error, ConnectionError | DatasetNotFoundError | LocalEntryNotFoundError | OfflineModeIsEnabled
    )


__all__ = ["LoadedTask", "load_task"]
