"""Collects a model's greedy answers to a set of prompts, and compares them with the dense model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.placement.onloaded_forward import own_forward
from suite.evaluation.dense_reference import GivenAnswers
from suite.evaluation.measured import Measured
from suite.evaluation.scoring.answer_likelihood import answer_nll
from suite.evaluation.scoring.decoder_pass import steps_each
from suite.evaluation.scoring.responses import (
    PROMPTS_PER_BATCH,
    Answer,
    encode_prompts,
    first_parted_token,
    greedy_answers,
    repetition,
    uses_chat_template,
)
from suite.results.records.items import AnswerSet, AnswerText
from suite.results.statistics.metrics import ANSWERS, item_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from suite.cell import AnswersSpec
    from suite.data.prompts import PromptSet
    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel


def give_answers(
    loaded: LoadedModel, spec: AnswersSpec, prompts: PromptSet, log: PhaseLog, measured: Measured
) -> GivenAnswers:
    """Returns a model's answers to the prompts.

    Args:
        loaded: the model.
        spec: the maximum length of an answer.
        prompts: the prompts.
        log: records the time.
        measured: receives a remark if memory ran out.
    """
    assert loaded.tokenizer is not None, "checked before the run"
    sizes = [min(len(prompts.prompts), PROMPTS_PER_BATCH)]
    forward = own_forward(loaded.model, loaded.placement)
    with log.timed("answer prompts", len(prompts.prompts)), forward:
        answers = greedy_answers(
            loaded.model,
            loaded.tokenizer,
            prompts.prompts,
            max_new_tokens=spec.max_new_tokens,
            batch_size=sizes[0],
            on_answers=log.stepped,
            on_halved=sizes.append,
        )
    if len(sizes) > 1:
        measured.remarks.append(f"answers: memory ran out; it went on with batches of {sizes[-1]} prompts")
    return GivenAnswers(answers, sizes[-1])


def judge_answers(
    dense: LoadedModel, prompts: PromptSet, answers: Sequence[Answer], log: PhaseLog, measured: Measured
) -> list[float | None]:
    """Returns the dense model's mean negative log-likelihood of each answer, in nats per token.

    Args:
        dense: the dense model.
        prompts: the prompts that were answered.
        answers: one answer per prompt.
        log: records the time.
        measured: receives a remark if memory ran out.
    """
    assert dense.tokenizer is not None, "checked before the run"
    steps = len(answers) * steps_each(dense.model, dense.placement)
    with log.timed("judge answers", steps):
        encoded = encode_prompts(dense.tokenizer, prompts.prompts)
        return answer_nll(
            *(dense.model, encoded, answers),
            placement=dense.placement,
            on_answers=log.stepped,
            on_remark=lambda remark: measured.remarks.append(f"judging answers: {remark}"),
        )


def add_answers(
    measured: Measured,
    loaded: LoadedModel,
    spec: AnswersSpec,
    prompts: PromptSet,
    given: GivenAnswers,
    *,
    dense: GivenAnswers | None,
    dense_nll: Sequence[float | None] | None,
) -> None:
    """Adds answers and the metrics computed from them to `measured`.

    Args:
        measured: receives the answers and the metrics.
        loaded: the model that gave the answers.
        spec: the spec of the answers.
        prompts: the prompts.
        given: the model's answers.
        dense: the dense model's answers; None if this is the dense model, or there is none.
        dense_nll: the result of `judge_answers`; None if the answers were not judged.
    """
    answers = given.answers
    partings = [None] * len(answers) if dense is None else _partings(dense.answers, answers)
    if dense is not None and dense.batch_size != given.batch_size:
        measured.remarks.append(
            f"answers: {given.batch_size} prompts were answered at once, by the dense model "
            f"{dense.batch_size}; in half precision that alone makes some of them part"
        )
    repeated = [repetition(answer.token_ids) for answer in answers]
    measured.answers = AnswerSet(
        prompts=prompts.name,
        prompts_digest=prompts.digest,
        max_new_tokens=spec.max_new_tokens,
        chat_template=uses_chat_template(loaded.tokenizer) if loaded.tokenizer is not None else False,
        batch_size=given.batch_size,
        answers=tuple(
            AnswerText(
                id=prompt.id,
                kind=prompt.kind,
                prompt=prompt.text,
                text=answer.text,
                n_tokens=len(answer.token_ids),
                ended=answer.ended,
                parted_at=parted_at,
                repetition=share,
                dense_nll=None if dense_nll is None else dense_nll[place],
            )
            for place, (prompt, answer, parted_at, share) in enumerate(
                zip(prompts.prompts, answers, partings, repeated, strict=True)
            )
        ),
    )
    measured.metrics += item_metrics(ANSWERS, measured.answers, compared=dense is not None)


def _partings(dense: Sequence[Answer], answers: Sequence[Answer]) -> list[int | None]:
    return [first_parted_token(a.token_ids, b.token_ids) for a, b in zip(dense, answers, strict=True)]


__all__ = ["add_answers", "give_answers", "judge_answers"]
