"""Runs all evaluations of a cell: of the dense model, and of pruned models compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suite.evaluation.answers import add_answers, give_answers, judge_answers
from suite.evaluation.cost import add_size, add_speed
from suite.evaluation.dense_reference import DenseReference
from suite.evaluation.measured import Measured
from suite.evaluation.tasks import measure_task
from suite.evaluation.texts import measure_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from suite.cell import Cell
    from suite.evaluation.inputs import Inputs
    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel


def measure_dense(
    loaded: LoadedModel, cell: Cell, inputs: Inputs, reference: DenseReference, log: PhaseLog
) -> Measured:
    """Measures the dense model, and keeps in `reference` what pruned models will be compared with.

    Args:
        loaded: the dense model.
        cell: the measurements to run: those of its own cell, or of another one to compare with.
        inputs: texts, tasks and prompts.
        reference: receives the dense model's side of the comparisons.
        log: records the time.
    """
    measured = _texts_and_tasks(loaded, cell, inputs, reference, log, is_dense=True)
    if cell.answers is not None:
        prompts = inputs.prompts[cell.answers.prompts]
        answers = give_answers(loaded, cell.answers, prompts, log, measured)
        reference.answers[cell.answers] = answers
        reference.seconds[cell.answers] = log.costs[-1].seconds
        add_answers(measured, loaded, cell.answers, prompts, answers, dense=None, dense_nll=None)
    if cell.speed is not None:
        add_speed(measured, loaded, cell.speed, None, log)
    return measured


def measure_pruned(
    loaded: LoadedModel,
    cell: Cell,
    inputs: Inputs,
    reference: DenseReference,
    log: PhaseLog,
    *,
    dense_again: Callable[[], LoadedModel] | None,
) -> Measured:
    """Measures a pruned model and compares it with the dense one.

    Args:
        loaded: the pruned model. Calling `dense_again` may overwrite it.
        cell: the measurements to run.
        inputs: texts, tasks and prompts.
        reference: the dense model's side; empty if there is no dense model.
        log: records the time.
        dense_again: returns the dense model, to judge the pruned one's answers; None if there is none.
    """
    measured = _texts_and_tasks(loaded, cell, inputs, reference, log, is_dense=False)
    answers = None
    if cell.answers is not None:
        # Before the speed, like the dense model's; they are judged last, when the pruned model is not needed.
        prompts = inputs.prompts[cell.answers.prompts]
        answers = give_answers(loaded, cell.answers, prompts, log, measured)
    if cell.speed is not None:
        add_speed(measured, loaded, cell.speed, cell.pattern or "unknown", log)
    if cell.answers is not None and answers is not None:
        nll = None
        if dense_again is not None:
            nll = judge_answers(dense_again(), prompts, answers.answers, log, measured)
        dense = reference.answers.get(cell.answers)
        add_answers(measured, loaded, cell.answers, prompts, answers, dense=dense, dense_nll=nll)
    return measured


def _texts_and_tasks(
    loaded: LoadedModel,
    cell: Cell,
    inputs: Inputs,
    reference: DenseReference,
    log: PhaseLog,
    *,
    is_dense: bool,
) -> Measured:
    measured = Measured()
    for spec in cell.perplexity:
        measure_text(
            *(loaded, spec, inputs.windows[spec], reference, log, measured),
            is_dense=is_dense,
            divergence=cell.divergence,
        )
    for task in cell.tasks:
        measure_task(loaded, inputs.tasks[task], reference, log, measured, is_dense=is_dense)
    return measured


__all__ = ["DenseReference", "Measured", "add_size", "measure_dense", "measure_pruned"]
