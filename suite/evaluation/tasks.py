"""Accuracy on a cell's tasks, and which answers flipped against the dense model's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import isclose
from typing import TYPE_CHECKING, Literal

from methods.errors import InputError, PruningError, reason
from methods.placement.out_of_memory import is_out_of_memory
from suite.evaluation.lm_eval_tasks.zero_shot import TaskItem, TaskRun, TaskScore, run_task
from suite.evaluation.measured import ItemRow, Measured
from suite.evaluation.scoring.decoder_pass import steps_each
from suite.results.records.items import TaskOutcomes
from suite.results.statistics.paired import mcnemar
from suite.results.statistics.single import Estimate, score_mean

if TYPE_CHECKING:
    from suite.evaluation.dense_reference import DenseReference
    from suite.evaluation.lm_eval_tasks.loading import LoadedTask
    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel


def measure_task(
    loaded: LoadedModel,
    task: LoadedTask,
    reference: DenseReference,
    log: PhaseLog,
    measured: Measured,
    *,
    is_dense: bool,
) -> None:
    """Asks a model one task, or all tasks of a group.

    Args:
        loaded: the model.
        task: what to ask.
        reference: the dense model's answers are put there, or taken from there if they are there.
        log: is charged the time.
        measured: gets metrics, outcomes and rows; a remark in their place where the task's own code failed.
        is_dense: whether this is the dense model.
    """
    steps = task.n_requests * steps_each(loaded.model, loaded.placement)
    with log.timed(f"evaluate {task.spec.name}", steps):
        try:
            runs = run_task(
                loaded,
                task,
                on_scored=log.stepped,
                on_remark=lambda remark: measured.remarks.append(f"{task.spec.name}: {remark}"),
            )
        except (InputError, PruningError):
            raise
        except Exception as error:  # task files hold code of their own; what was measured before is kept
            if is_out_of_memory(error) or "CUDA" in str(error):
                raise
            measured.remarks.append(f"{task.spec.name} has no score, it failed: {reason(error)}")
            runs = []
    dense = {run.task: run for run in reference.tasks.get(task.spec, ())}
    for run in runs:
        _add_scores(measured, run)
        _add_items(measured, run, task)
        if not is_dense and run.task in dense:
            _add_flips(measured, dense[run.task], run)
    if is_dense:
        reference.tasks[task.spec] = runs
        reference.seconds[task.spec] = log.costs[-1].seconds


def items_digest(items: Sequence[TaskItem]) -> str:
    """SHA-256 over the hashes of questions, prompts and answers, in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.doc_hash}\0{item.prompt_hash}\0{item.target_hash}\n".encode())
    return digest.hexdigest()


def outcomes(run: TaskRun) -> list[bool] | None:
    """Whether each question was answered rightly, by the main metric; None where it grades otherwise."""
    values = [item.scores.get(run.main_metric or "") for item in run.items]
    if not values or any(value not in (0.0, 1.0) for value in values):
        return None
    return [value == 1.0 for value in values]


def _add_scores(measured: Measured, run: TaskRun) -> None:
    for score in run.scores:
        measured.add(score.metric, run.protocol, _estimate(score, run), _direction(score))


def _estimate(score: TaskScore, run: TaskRun) -> Estimate:
    """lm-eval's value and error; with an interval of ours where the value is the mean of the questions'."""
    if score.value is None:
        return Estimate(None, None, None, None, run.n, "lm-eval gives no finite value")
    values = [item.scores.get(score.metric) for item in run.items]
    estimate = score_mean(score.metric, values)
    if estimate.value is not None and isclose(estimate.value, score.value, rel_tol=1e-9, abs_tol=1e-12):
        return estimate
    return Estimate(score.value, score.stderr, None, None, run.n)


def _direction(score: TaskScore) -> Literal["higher", "lower", "none"]:
    if score.higher_is_better is None:
        return "none"
    return "higher" if score.higher_is_better else "lower"


def _add_items(measured: Measured, run: TaskRun, task: LoadedTask) -> None:
    if not run.items:  # a group: its tasks have them
        return
    right = outcomes(run)
    measured.tasks.append(
        TaskOutcomes(
            task=run.task,
            protocol=run.protocol,
            version=run.version,
            num_fewshot=run.num_fewshot,
            limit=task.spec.limit,
            n=len(run.items),
            docs_digest=task.digests[run.protocol],
            items_digest=items_digest(run.items),
            metric=run.main_metric or "",
            outcomes=None if right is None else "".join("01"[one] for one in right),
        )
    )
    measured.rows += [
        ItemRow(run.protocol, metric, n, item.doc_hash, item.prompt_hash, item.target_hash, value, None)
        for n, item in enumerate(run.items)
        for metric, value in item.scores.items()
    ]


def _add_flips(measured: Measured, dense: TaskRun, run: TaskRun) -> None:
    before, after = outcomes(dense), outcomes(run)
    if before is None or after is None:
        return
    if items_digest(dense.items) != items_digest(run.items):
        measured.remarks.append(f"{run.protocol}: the dense model was asked other questions, so no flips")
        return
    flips = mcnemar(before, after)
    measured.add("flips_right_to_wrong", run.protocol, flips.lost, "lower")
    measured.add("flips_wrong_to_right", run.protocol, flips.gained, "none")


__all__ = ["items_digest", "measure_task", "outcomes"]
