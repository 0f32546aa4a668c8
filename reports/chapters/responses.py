"""The answers of all models to the same prompts: metrics, and full texts compared with the dense model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from markupsafe import escape

from reports.chapters.chapter import (
    Chapter,
    Dialogue,
    Part,
    Reply,
    Subject,
    chapter_table,
    dense_subjects,
    grouped,
    metric_column,
    pruned_subjects,
)
from reports.rankings.labels import ANSWERS
from reports.rankings.ranking import Ranking
from reports.tables import Column
from reports.wording import SHARE, counted, decimal, listed, pattern_name, visible
from suite.results.records.items import AnswerSet, AnswerText

SHOWN_UP_TO = 12
"""With more pruned models than this, full answers are shown only for the best of each pattern."""
BEST = 8
"""Number of these best models per pattern, if the page has room."""

_OPENING = 90
"""Characters of a prompt on the line that unfolds it."""
_MARKUP = 140
"""Size of a reply besides its text, in bytes, at most."""


@dataclass(frozen=True)
class PromptGroup:
    """What has to be equal for two sets of answers to be comparable."""

    digest: str
    max_new_tokens: int
    chat_template: bool


def answers_chapter(rankings: Sequence[Ranking], budget: int | None = None) -> Chapter | None:
    """Builds a part for every set of prompts.

    Args:
        rankings: the rankings of one setting.
        budget: bytes that the full answers may take; None leaves them out.
    """
    pruned = [s for s in pruned_subjects(rankings) if s.record.answers is not None]
    dense = [s for s in dense_subjects(rankings) if s.record.answers is not None]
    groups = grouped([*dense, *pruned], lambda subject: [_group(_answers(subject))])
    if not groups:
        return None
    share = None if budget is None else budget // len(groups)
    parts = tuple(_part(subjects, share) for subjects in groups.values())
    notes = (
        "Answers are greedy: always the most likely token. Intervals are over prompts. An answer is as "
        "dense if every token equals the dense model's. The dense model's loss is the mean negative "
        "log-likelihood that it gives the answer: higher if the dense model finds it less likely. Word by "
        "word, the first character that differs from the dense model's answer is marked (∎ if the answer "
        "ends there); tokens and characters are counted from 0.",
    )
    return Chapter("answers", "Answers", parts, notes)


def _part(subjects: Sequence[Subject], budget: int | None) -> Part:
    answers = _answers(subjects[0])
    prompts = counted(len(answers.answers), "prompt")
    put = "by the model's chat template" if answers.chat_template else "as text to continue"
    title = (
        f"{visible(answers.prompts)} ({prompts}, {put}), at most {answers.max_new_tokens} tokens per answer"
    )
    table = chapter_table(title, subjects, _columns(subjects)).noted(*_batches(subjects))
    if budget is None:
        return Part(table, title)
    dialogues, left_out = _shown(subjects, budget)
    return Part(table.noted(left_out) if left_out else table, title, dialogues)


def _batches(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Warns if the models answered different numbers of prompts at once."""
    sizes = sorted({_answers(s).batch_size for s in subjects})
    if len(sizes) == 1:
        return ()
    return (
        f"Not all models answered as many prompts at once ({listed([str(size) for size in sizes])}); in half "
        "precision that alone changes some answers.",
    )


def _columns(subjects: Sequence[Subject]) -> list[Column]:
    columns = []
    for name, label in ANSWERS.items():
        metrics = [s.record.metric(name, _answers(s).protocol) for s in subjects]
        if any(metric is not None for metric in metrics):
            columns.append(
                metric_column(
                    subjects, metrics, title=label.title, about=label.about, unit=label.unit, item="prompt"
                )
            )
    return columns


def _shown(subjects: Sequence[Subject], budget: int) -> tuple[tuple[Dialogue, ...], str]:
    """Selects as many models as the page has room for, then as many prompts; and says what was left out."""
    dense = [s for s in subjects if s.is_dense]
    pruned = [s for s in subjects if not s.is_dense]
    replies = {id(s): _replies(s, dense[0] if dense else None) for s in subjects}
    sizes = {subject: sum(map(_size, by_prompt.values())) for subject, by_prompt in replies.items()}
    prompts = _by_id(subjects[0])
    around = sum(_prompt_size(answer) for answer in prompts.values())

    def taken(models: Sequence[Subject]) -> int:
        return around + sum(sizes[id(s)] for s in models)

    chosen, best = [*dense, *pruned], 0
    if len(pruned) > SHOWN_UP_TO or taken(chosen) > budget:
        for best in range(BEST, 0, -1):
            chosen = [*dense, *_best(pruned, best)]
            if taken(chosen) <= budget:
                break
    asked = list(prompts)
    if taken(chosen) > budget:
        asked = _spread_out(asked, len(asked) * budget // taken(chosen))
    lacks = []
    if len(chosen) < len(subjects):
        what = "the best model" if best == 1 else f"the {best} best models"
        lacks.append(f"{what} of each pattern, by perplexity ({len(chosen) - len(dense)} of {len(pruned)})")
    if len(asked) < len(prompts):
        lacks.append(f"{len(asked)} of {len(prompts)} prompts, evenly picked")
    left_out = f"Word by word, to keep the page small: {' and '.join(lacks)}. The records hold all."
    compared = [replies[id(s)] for s in pruned]
    dialogues = tuple(
        _dialogue(prompts[prompt], [replies[id(s)] for s in chosen], compared if dense else [])
        for prompt in asked
    )
    return dialogues, left_out if lacks else ""


def _dialogue(
    answer: AnswerText, shown: Sequence[Mapping[str, Reply]], compared: Sequence[Mapping[str, Reply]]
) -> Dialogue:
    line = " ".join(answer.prompt.split())
    compared_replies = [replies[answer.id] for replies in compared if answer.id in replies]
    alike = sum(reply.is_as_dense for reply in compared_replies)
    return Dialogue(
        name=answer.id,
        kind=answer.kind,
        prompt=answer.prompt,
        opening=line if len(line) <= _OPENING else f"{line[:_OPENING].rstrip()}…",
        replies=tuple(replies[answer.id] for replies in shown if answer.id in replies),
        agreed=f"{alike} of {len(compared_replies)} as dense" if compared_replies else "",
    )


def _replies(subject: Subject, dense: Subject | None) -> dict[str, Reply]:
    """Maps each prompt id to the model's reply."""
    label = subject.label if subject.pattern is None else f"{subject.label}, {pattern_name(subject.pattern)}"
    beside = {} if dense is None or subject.is_dense else _by_id(dense)
    return {prompt: _reply(label, answer, beside.get(prompt)) for prompt, answer in _by_id(subject).items()}


def _reply(label: str, answer: AnswerText, dense: AnswerText | None) -> Reply:
    ended = "ended" if answer.ended else "cut"
    facts = [f"{ended} after {counted(answer.n_tokens, 'token')}"]
    if answer.repetition is not None:
        facts.append(f"repetition {SHARE.value(answer.repetition)}")
    if answer.dense_nll is not None:
        facts.append(f"dense model's loss {decimal(answer.dense_nll, 3)}")
    if dense is None:
        return Reply(label, " · ".join(facts), answer.text)
    if answer.parted_at is None and answer.text == dense.text:
        return Reply(label, " · ".join(["as dense", *facts]), "", is_as_dense=True)
    split = _split(label, answer.text, dense.text)
    token = "" if answer.parted_at is None else f" at token {answer.parted_at}"
    place = f", character {len(split.before)}" if split.differing else ", with the same text"
    return replace(split, facts=" · ".join([f"parts from dense{token}{place}", *facts]))


def _split(label: str, text: str, dense: str) -> Reply:
    """Splits a text at the first character that differs from the dense answer."""
    pairs = enumerate(zip_longest(text, dense))
    at = next((place for place, (ours, theirs) in pairs if ours != theirs), None)
    if at is None:
        return Reply(label, "", text)
    if at == len(text):
        return Reply(label, "", text, "∎")
    # A line break alone would be invisible, so mark it with an arrow.
    return Reply(label, "", text[:at], "↵\n" if text[at] == "\n" else text[at], text[at + 1 :])


def _best(pruned: Sequence[Subject], n: int) -> list[Subject]:
    """Returns the first n of each pattern; subjects are sorted best first."""
    counts: dict[str | None, int] = {}
    kept = []
    for subject in pruned:
        counts[subject.pattern] = counts.get(subject.pattern, 0) + 1
        if counts[subject.pattern] <= n:
            kept.append(subject)
    return kept


def _spread_out(prompts: Sequence[str], n: int) -> list[str]:
    """Picks n prompts, at least one, evenly over the list, because prompts of one kind are adjacent."""
    n = max(1, n)
    return [prompts[i * len(prompts) // n] for i in range(n)]


def _size(reply: Reply) -> int:
    """Approximate size of a reply on the page, in bytes."""
    texts = (reply.label, reply.facts, reply.before, reply.differing, reply.after)
    return _MARKUP + sum(map(_text_size, texts))


def _prompt_size(answer: AnswerText) -> int:
    return 4 * _MARKUP + _text_size(answer.prompt) + _text_size(answer.prompt[:_OPENING])


def _text_size(text: str) -> int:
    return len(escape(visible(text)).encode(errors="replace"))


def _group(answers: AnswerSet) -> PromptGroup:
    return PromptGroup(answers.prompts_digest, answers.max_new_tokens, answers.chat_template)


def _answers(subject: Subject) -> AnswerSet:
    assert subject.record.answers is not None, "only models that answered are shown"
    return subject.record.answers


def _by_id(subject: Subject) -> dict[str, AnswerText]:
    return {answer.id: answer for answer in _answers(subject).answers}
