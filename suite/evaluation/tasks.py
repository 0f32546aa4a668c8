"""Measures accuracy on a cell's tasks, and the answers that flipped compared with the dense model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from methods.errors import InputError, PruningError, reason
from methods.placement.out_of_memory import is_out_of_memory
from suite.evaluation.lm_eval_tasks.zero_shot import TaskRun, run_task
from suite.evaluation.measured import Measured
from suite.evaluation.scoring.decoder_pass import steps_each
from suite.results.records.items import ItemRow, RightAnswers, TaskOutcomes
from suite.results.statistics.metrics import PRODUCTION, Direction, item_metrics
from suite.results.statistics.task_items import flip_metrics, items_digest, outcomes_of, score_estimate

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
    """Runs one task, or all tasks of a group, on a model.

    Args:
        loaded: the model.
        task: the task to run.
        reference: stores the dense model's results, or provides them for a pruned model if available.
        log: records the time.
        measured: receives metrics, outcomes and rows, or only a remark if the task's own code failed.
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
        except Exception as error:  # task files may contain code that raises anything; keep earlier results
            if is_out_of_memory(error) or "CUDA" in str(error):
                raise
            measured.remarks.append(f"{task.spec.name} has no score, it failed: {reason(error)}")
            runs = []
    dense = {run.task: run for run in reference.tasks.get(task.spec, ())}
    for run in runs:
        _add_scores(measured, run)
        if not run.items:  # a group: its tasks have the items
            continue
        asked = _outcomes(run, task)
        measured.tasks.append(asked)
        if asked.right_answers is not None:
            measured.metrics += item_metrics(PRODUCTION, asked)
        measured.rows += [
            ItemRow(run.protocol, metric, n, *item.hashes, value, None)
            for n, item in enumerate(run.items)
            for metric, value in item.scores.items()
        ]
        if not is_dense and run.task in dense:
            before = _outcomes(dense[run.task], task)
            if before.items_digest == asked.items_digest:
                measured.metrics += flip_metrics(before, asked)
            elif before.outcomes is not None and asked.outcomes is not None:
                measured.remarks.append(
                    f"{run.protocol}: the dense model was asked other questions, so no flips"
                )
    if is_dense:
        reference.tasks[task.spec] = runs
        reference.seconds[task.spec] = log.costs[-1].seconds


def _outcomes(run: TaskRun, task: LoadedTask) -> TaskOutcomes:
    return TaskOutcomes(
        task=run.task,
        protocol=run.protocol,
        version=run.version,
        num_fewshot=run.num_fewshot,
        limit=task.spec.limit,
        n=len(run.items),
        docs_digest=task.digests[run.protocol],
        items_digest=items_digest(item.hashes for item in run.items),
        metric=run.main_metric or "",
        outcomes=outcomes_of([item.scores.get(run.main_metric or "") for item in run.items]),
        right_answers=_right_answers(run),
        contexts=None if run.shared is None else "shared" if run.shared else "separate",
    )


def _right_answers(run: TaskRun) -> RightAnswers | None:
    answers = [item.right_answer for item in run.items if item.right_answer is not None]
    if not answers or len(answers) < len(run.items):
        return None
    return RightAnswers(
        produced="".join("1" if answer.produced else "0" for answer in answers),
        ranks=tuple(answer.rank for answer in answers),
        losses=tuple(answer.loss for answer in answers),
    )


def _add_scores(measured: Measured, run: TaskRun) -> None:
    for score in run.scores:
        values = [item.scores.get(score.metric) for item in run.items]
        estimate = score_estimate(score.metric, score.value, score.stderr, values)
        better = score.higher_is_better
        direction: Direction = "none" if better is None else "higher" if better else "lower"
        # Set n here, because a group has no items of its own.
        measured.add(score.metric, run.protocol, replace(estimate, n=run.n), direction)


__all__ = ["measure_task"]
