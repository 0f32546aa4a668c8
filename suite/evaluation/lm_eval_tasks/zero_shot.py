"""Accuracy on lm-eval's tasks, question by question, on the model in memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, reason
from suite.data.tokenized_text import fingerprint
from suite.evaluation.lm_eval_tasks.cut_contexts import cut_contexts
from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from suite.evaluation.lm_eval_tasks.loading import LoadedTask
    from suite.evaluation.lm_eval_tasks.scoring_model import Prepared
    from suite.models.loading import LoadedModel

BOOTSTRAP_ITERATIONS = 1000
"""For the standard errors of metrics that are no means; those of means are computed."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        metric: lm-eval's name, `acc`; with its filter where it has one, `exact_match[strict-match]`.
        value: None where lm-eval has no finite one.
        stderr: its standard error, as lm-eval computes it; None where it cannot.
        higher_is_better: None where the task does not say.
    """

    metric: str
    value: float | None
    stderr: float | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class TaskItem:
    """One question: lm-eval's hashes, which tell whether two runs asked the same, and its scores.

    Attributes:
        doc_hash: of the question's data.
        prompt_hash: of what the model was shown.
        target_hash: of the right answer.
        scores: metric -> the question's own value; None where it is no number.
    """

    doc_hash: str
    prompt_hash: str
    target_hash: str
    scores: Mapping[str, float | None]

    @property
    def hashes(self) -> tuple[str, str, str]:
        """Those of the question's data, of what was shown, and of the answer."""
        return self.doc_hash, self.prompt_hash, self.target_hash


@dataclass(frozen=True)
class TaskRun:
    """A task, or a group of tasks, after it was asked.

    Attributes:
        task: its name.
        version: the task file's own; empty where it has none.
        num_fewshot: examples before each question.
        scores: its metrics, in the task's order.
        items: its questions in order; none for a group, whose tasks stand beside it.
        n: how many questions there are.
    """

    task: str
    version: str
    num_fewshot: int
    scores: tuple[TaskScore, ...]
    items: tuple[TaskItem, ...]
    n: int

    @property
    def protocol(self) -> str:
        """What makes two scores comparable, together with version, limit and questions: `boolq-0shot`."""
        return f"{self.task}-{self.num_fewshot}shot"

    @property
    def main_metric(self) -> str | None:
        """`acc` where the task has it, as the papers report it, else its first metric."""
        names = [score.metric for score in self.scores]
        return "acc" if "acc" in names else next(iter(names), None)


def run_task(
    loaded: LoadedModel,
    task: LoadedTask,
    *,
    on_scored: Callable[[int], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> list[TaskRun]:
    """Asks a model the questions of a task.

    Args:
        loaded: the model and its tokenizer.
        task: what to ask.
        on_scored: called with the number of requests that were scored; a question may make several. Each is
            counted as often as `suite.evaluation.scoring.decoder_pass.steps_each` says.
        on_remark: called with what a reader should know: where memory ran out, and how many requests lost the
            start of their context.

    Returns:
        A run a task, groups last.
    """
    from lm_eval.evaluator import evaluate

    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel

    assert loaded.tokenizer is not None, "checked before the run"
    # What lm-eval prints goes where progress goes; stdout is for data.
    with quiet_lm_eval(), redirect_stdout(sys.stderr):
        asked = ScoringModel(
            *(loaded.model, loaded.tokenizer),
            placement=loaded.placement,
            on_scored=on_scored,
            on_remark=on_remark,
            prepared=_prepared(task, loaded.tokenizer),
        )
        results: Any = evaluate(
            lm=asked,
            task_dict=task.tree,
            limit=task.spec.limit,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            log_samples=True,
        )
    if on_remark is not None:
        for name, remark in cut_contexts(asked.lengths, asked.max_length):
            on_remark(remark if name in (None, task.spec.name) else f"{name}: {remark}")
    runs = [_run(name, results, results["results"][name]) for name in task.tree["tasks"]]
    groups = results.get("groups", {})
    return runs + [_group(name, results, scores) for name, scores in groups.items()]


def prepare_task(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: LoadedTask) -> None:
    """Tokenizes what a task asks, and keeps it for all models with that tokenizer.

    Args:
        model: the model, of which only the structure is looked at.
        tokenizer: its tokenizer.
        task: what will be asked.

    Raises:
        InputError: the model has no embedding for a token, or no positions for an answer.
    """
    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel

    with quiet_lm_eval(), redirect_stdout(sys.stderr):
        asked = ScoringModel(model, tokenizer, prepared=_prepared(task, tokenizer))
        # In the order in which lm-eval's `evaluate` asks: what it asks later is found again.
        by_kind: dict[str, list[Any]] = {}
        for one in task.tree["tasks"].values():
            for request in one.instances:
                by_kind.setdefault(request.request_type, []).extend([request] * request.repeats)
        try:
            for kind, requests in by_kind.items():
                asked.prepare(kind, requests)
        except InputError as error:
            raise InputError(f"task {task.spec.name!r}: {error}") from error
        except Exception as error:  # a tokenizer's, which have no class of their own
            raise InputError(f"task {task.spec.name!r} cannot be tokenized: {reason(error)}") from error


def _prepared(task: LoadedTask, tokenizer: PreTrainedTokenizerBase) -> Prepared:
    ends = f"{tokenizer.bos_token_id} {tokenizer.eos_token_id}"  # lm-eval puts one where a context is empty
    return task.prepared.setdefault(f"{fingerprint(tokenizer)} {ends}", {})


def _run(name: str, results: Mapping[str, Any], scores: Mapping[str, Any]) -> TaskRun:
    better = results["higher_is_better"].get(name, {})
    items = tuple(_items(results["samples"].get(name, ())))
    version = results["versions"].get(name)
    return TaskRun(
        task=name,
        version="" if version is None else str(version),
        num_fewshot=int(results["n-shot"].get(name) or 0),
        scores=tuple(_scores(scores, better)),
        items=items,
        n=len(items),
    )


def _group(name: str, results: Mapping[str, Any], scores: Mapping[str, Any]) -> TaskRun:
    """A group's run: of its questions only the number."""
    members = [name]
    for member in members:
        members += results["group_subtasks"].get(member, [])
    n = sum(results["n-samples"][m]["effective"] for m in members if m in results["n-samples"])
    return replace(_run(name, results, scores), n=n)


def _scores(scores: Mapping[str, Any], better: Mapping[str, bool | None]) -> Iterator[TaskScore]:
    for key, value in scores.items():
        name, comma, filter_name = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        stderr = _number(scores.get(f"{name}_stderr,{filter_name}"))
        yield TaskScore(_named(name, filter_name), _number(value), stderr, better.get(name))


def _items(samples: Sequence[Mapping[str, Any]]) -> Iterator[TaskItem]:
    """One item a question; where a task has several filters, their scores stand together."""
    merged: dict[int, dict[str, Any]] = {}
    for sample in samples:
        item = merged.setdefault(sample["doc_id"], {"sample": sample, "scores": {}})
        for name in sample["metrics"]:
            item["scores"][_named(name, sample["filter"])] = _number(sample[name])
    for item in merged.values():
        sample = item["sample"]
        yield TaskItem(sample["doc_hash"], sample["prompt_hash"], sample["target_hash"], item["scores"])


def _named(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric}[{filter_name}]"


def _number(value: Any) -> float | None:
    """`value` as a finite float; None for whatever else lm-eval has there ("N/A", lists of parts)."""
    if isinstance(value, bool | int | float) or hasattr(value, "__float__"):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


__all__ = ["TaskItem", "TaskRun", "TaskScore", "prepare_task", "run_task"]
