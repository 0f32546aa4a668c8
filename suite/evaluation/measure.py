"""From evaluations to what a record holds of them: of the dense model, and of pruned ones held against it."""

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
    """Measures the dense model, and keeps in `reference` what pruned ones will be held against.

    Args:
        loaded: the dense model.
        cell: what to measure; its own cell, or another one's that will be compared.
        inputs: texts, tasks and prompts.
        reference: is filled.
        log: is charged the time.
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
    """Measures a pruned model and holds it against the dense one.

    Args:
        loaded: the pruned model. Where `dense_again` is called it may be gone afterwards.
        cell: what to measure.
        inputs: texts, tasks and prompts.
        reference: the dense model's side; empty where there is no dense model.
        log: is charged the time.
        dense_again: gives the dense model, to judge the pruned one's answers; None where there is none.
    """
    measured = _texts_and_tasks(loaded, cell, inputs, reference, log, is_dense=False)
    answers = None
    if cell.answers is not None:
        # Before the speed, as the dense model's; they are judged last, when the pruned model may go.
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
