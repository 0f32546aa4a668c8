"""Runs lm-eval's tasks on the model in memory and returns the scores of every question."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from methods.errors import InputError, reason
from suite.data.tokenized_text import fingerprint
from suite.evaluation.lm_eval_tasks.cut_contexts import cut_contexts
from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from suite.evaluation.lm_eval_tasks.loading import LoadedTask
    from suite.evaluation.lm_eval_tasks.scoring_model import Prepared, ScoreKey
    from suite.evaluation.scoring.continuations import Score
    from suite.models.loading import LoadedModel

BOOTSTRAP_ITERATIONS = 1000
"""Number of bootstrap samples for standard errors of metrics that are not means; others are computed."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        metric: lm-eval's name such as `acc`; with its filter, if any: `exact_match[strict-match]`.
        value: the score; None if lm-eval returns no finite value.
        stderr: the standard error that lm-eval computes; None if it cannot.
        higher_is_better: whether higher is better; None if the task does not specify it.
    """

    metric: str
    value: float | None
    stderr: float | None
    higher_is_better: bool | None


class RightAnswer(NamedTuple):
    """The right answer to a question, as the model itself would produce it.

    The best of several right answers; fields as in `suite.results.records.items.RightAnswers`.
    """

    produced: bool
    rank: int
    loss: float | None


@dataclass(frozen=True)
class TaskItem:
    """One question: lm-eval's hashes, by which two runs compare what they asked, and its scores.

    Attributes:
        doc_hash: hash of the question's data.
        prompt_hash: hash of the prompt shown to the model.
        target_hash: hash of the correct answer.
        scores: metric -> value for this question; None if it is not a number.
        right_answer: None if the task does not score given answers.
    """

    doc_hash: str
    prompt_hash: str
    target_hash: str
    scores: Mapping[str, float | None]
    right_answer: RightAnswer | None = None

    @property
    def hashes(self) -> tuple[str, str, str]:
        """The hashes of the question's data, of the prompt, and of the answer."""
        return self.doc_hash, self.prompt_hash, self.target_hash


@dataclass(frozen=True)
class TaskRun:
    """The results of a task, or of a group of tasks.

    Attributes:
        task: the task's name.
        version: the version in the task file; empty if it has none.
        num_fewshot: number of examples before each question.
        scores: its metrics, in the task's order.
        items: its questions in order; empty for a group, whose tasks have runs of their own.
        n: number of questions.
        shared: whether options were read together, the text of their question once; None if none were scored.
    """

    task: str
    version: str
    num_fewshot: int
    scores: tuple[TaskScore, ...]
    items: tuple[TaskItem, ...]
    n: int
    shared: bool | None = None

    @property
    def protocol(self) -> str:
        """Protocol such as `boolq-0shot`: scores compare if it, version, limit and questions are equal."""
        return f"{self.task}-{self.num_fewshot}shot"

    @property
    def main_metric(self) -> str | None:
        """`acc`, which papers report, if the task has it; otherwise its first metric."""
        names = [score.metric for score in self.scores]
        return "acc" if "acc" in names else next(iter(names), None)


def run_task(
    loaded: LoadedModel,
    task: LoadedTask,
    *,
    on_scored: Callable[[int], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> list[TaskRun]:
    """Runs a task on a model.

    Args:
        loaded: the model and its tokenizer.
        task: the task to run.
        on_scored: called with the number of scored requests; a question may have several. Each counts as
            many times as `suite.evaluation.scoring.decoder_pass.steps_each` returns.
        on_remark: called with remarks for the reader: whether memory ran out, and how many requests lost the
            start of their context.

    Returns:
        One run per task, groups last.
    """
    from lm_eval.evaluator import evaluate

    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel

    assert loaded.tokenizer is not None, "checked before the run"
    # Redirect lm-eval's output to stderr, where progress is shown; stdout is for data.
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
    runs = [
        _run(name, results, results["results"][name], _right_answers(one, asked.scores))
        for name, one in task.tree["tasks"].items()
    ]
    if asked.scores:
        runs = [replace(run, shared=asked.scorer.shared) for run in runs]
    groups = results.get("groups", {})
    return runs + [_group(name, results, scores) for name, scores in groups.items()]


def prepare_task(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: LoadedTask) -> None:
    """Tokenizes a task's requests, and keeps them for all models with the same tokenizer.

    Args:
        model: the model; only its structure is used.
        tokenizer: its tokenizer.
        task: the task to prepare.

    Raises:
        InputError: the model has no embedding for a token, or too few positions for an answer.
    """
    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel

    with quiet_lm_eval(), redirect_stdout(sys.stderr):
        asked = ScoringModel(model, tokenizer, prepared=_prepared(task, tokenizer))
        # Use the order of lm-eval's `evaluate`, so that its requests match the prepared ones.
        by_kind: dict[str, list[Any]] = {}
        for one in task.tree["tasks"].values():
            for request in one.instances:
                by_kind.setdefault(request.request_type, []).extend([request] * request.repeats)
        try:
            for kind, requests in by_kind.items():
                asked.prepare(kind, requests)
        except InputError as error:
            raise InputError(f"task {task.spec.name!r}: {error}") from error
        except Exception as error:  # tokenizers do not raise errors of a specific class
            raise InputError(f"task {task.spec.name!r} cannot be tokenized: {reason(error)}") from error


def _prepared(task: LoadedTask, tokenizer: PreTrainedTokenizerBase) -> Prepared:
    ends = (
        f"{tokenizer.bos_token_id} {tokenizer.eos_token_id}"  # lm-eval puts one of them in an empty context
    )
    return task.prepared.setdefault(f"{fingerprint(tokenizer)} {ends}", {})


def _right_answers(task: Any, scores: Mapping[ScoreKey, Score]) -> dict[int, RightAnswer]:
    """Returns the right answer of each question by its `doc_id`; none for tasks that do not score answers."""
    if getattr(task, "OUTPUT_TYPE", None) not in ("multiple_choice", "loglikelihood"):
        return {}
    found = {}
    for request in task.instances:
        if request.doc_id in found:
            continue
        of_right = [
            score
            for index in _right_requests(task, request.doc)
            if (score := scores.get((request.task_name, request.doc_id, index))) is not None
        ]
        if of_right:
            found[request.doc_id] = RightAnswer(
                produced=any(score.greedy for score in of_right),
                rank=min(score.rank for score in of_right),
                loss=min((loss for loss in map(_loss, of_right) if loss is not None), default=None),
            )
    return found


def _loss(score: Score) -> float | None:
    return _number(-score.log_likelihood / score.n_tokens)


def _right_requests(task: Any, doc: Any) -> list[Any]:
    """Returns the indices of a question's requests that score a right answer."""
    if task.OUTPUT_TYPE == "loglikelihood":
        return [0]
    if getattr(task, "multiple_input", 0):
        return [task.doc_to_text(doc)]  # the choices are contexts, and the answer is which of them is right
    choices, targets = task.doc_to_choice(doc), task.doc_to_target(doc)
    named = targets if isinstance(targets, list) else [targets]
    return [choices.index(target) if target in choices else target for target in named]


def _run(
    name: str,
    results: Mapping[str, Any],
    scores: Mapping[str, Any],
    right_answers: Mapping[int, RightAnswer] = MappingProxyType({}),
) -> TaskRun:
    better = results["higher_is_better"].get(name, {})
    items = tuple(_items(results["samples"].get(name, ()), right_answers))
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
    """Returns the run of a group, with the number of its questions but no items."""
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


def _items(
    samples: Sequence[Mapping[str, Any]], right_answers: Mapping[int, RightAnswer]
) -> Iterator[TaskItem]:
    """Yields one item per question; the scores of several filters are merged."""
    merged: dict[int, dict[str, Any]] = {}
    for sample in samples:
        item = merged.setdefault(sample["doc_id"], {"sample": sample, "scores": {}})
        for name in sample["metrics"]:
            item["scores"][_named(name, sample["filter"])] = _number(sample[name])
    for doc_id, item in merged.items():
        sample = item["sample"]
        yield TaskItem(
            *(sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]),
            scores=item["scores"],
            right_answer=right_answers.get(doc_id),
        )


def _named(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric}[{filter_name}]"


def _number(value: Any) -> float | None:
    """Returns `value` as a finite float; None for anything else in lm-eval's results ("N/A", lists)."""
    if isinstance(value, bool | int | float) or hasattr(value, "__float__"):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


__all__ = ["RightAnswer", "TaskItem", "TaskRun", "TaskScore", "prepare_task", "run_task"]
