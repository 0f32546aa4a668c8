"""A record against a rerun of its cell: what must come out again, and how nearly."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, isclose

from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Metric, Record
from suite.results.records.state import code_difference
from suite.results.statistics.metrics import DIVERGENCES, LOSSES
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import COSTS, SPEEDS, kinds_of
from suite.results.verification.task_scores import memory_ran_out, one_machine

EXACT = 1e-6
"""Relative, where nothing that rounds differs: what a CPU's scheduling could still change is far less."""
_ELSEWHERE = {of.name: of.elsewhere for of in LOSSES if of.elsewhere} | {
    of.name: of.elsewhere for of in DIVERGENCES if of.elsewhere
}
QUESTIONS = 50
"""Elsewhere, one question in so many may be answered otherwise, and one in any case."""


def input_that_differs(stored: Record, found: Record) -> str | None:
    """Which input of a rerun is not the record's, so that nothing can be said; None where all are."""
    pairs = {
        f"the weights of {stored.cell.model}": (
            stored.model.weight_digest if stored.model else None,
            found.model.weight_digest if found.model else None,
        ),
        "the calibration tokens": (
            stored.calibration.digest if stored.calibration else None,
            found.calibration.digest if found.calibration else None,
        ),
    }
    texts = {losses.protocol: losses.corpus_digest for losses in found.windows}
    for losses in stored.windows:
        pairs[f"the tokens of {losses.protocol}"] = (losses.corpus_digest, texts.get(losses.protocol))
    questions = {task.protocol: task.items_digest for task in found.tasks}
    for task in stored.tasks:
        pairs[f"the questions of {task.protocol}"] = (task.items_digest, questions.get(task.protocol))
    if stored.answers is not None:
        pairs["the prompts"] = (
            stored.answers.prompts_digest,
            found.answers.prompts_digest if found.answers else None,
        )
    for what, (then, now) in pairs.items():
        if then != now:
            return f"{what} are others: digest {_short(now)}, not {_short(then)}"
    return None


def compare_rerun(subject: Subject, found: Record) -> Iterator[Finding]:
    """Holds a record against a rerun that read the same inputs; times are never compared.

    Args:
        subject: the record.
        found: the record of the rerun.
    """
    stored = subject.record
    exact = one_machine(stored.environment, found.environment) and not memory_ran_out(stored, found)
    messages = [
        *_lengths(stored, found),
        *_windows(stored, found, exact),
        *_tasks(stored, found, exact),
        *_metrics(stored, found, exact),
    ]
    if exact and stored.answers is not None and found.answers is not None:
        texts = zip(stored.answers.answers, found.answers.answers, strict=False)  # `_lengths` has the rest
        if other := [one.id for one, two in texts if (one.text, one.n_tokens) != (two.text, two.n_tokens)]:
            messages.append(f"{len(other)} answers are others, {other[0]!r} for one")
    if stored.mask_digest != found.mask_digest:
        message = f"mask_digest is {_short(stored.mask_digest)}, run again {_short(found.mask_digest)}"
        if _same_masks_due(stored, found):
            messages.insert(0, message)
        else:
            yield subject.remark("rerun", f"{message}, on another device, thread count or torch")
    other_code = code_difference(stored.code, found.code)
    for message in messages:
        yield subject.problem("rerun", message + (f" ({other_code})" if other_code else ""))
    if other_code and not messages:
        yield subject.remark("rerun", f"was run again by other code: {other_code}")


def _same_masks_due(stored: Record, found: Record) -> bool:
    one, other = stored.environment, found.environment
    return (
        (one.device, one.threads, one.processor) == (other.device, other.threads, other.processor)
        and one.packages.get("torch") == other.packages.get("torch")
        and not memory_ran_out(stored, found)
    )


def _lengths(stored: Record, found: Record) -> Iterator[str]:
    """Items that one of the two does not have: a digest is only a claim, and may be that of more of them."""
    for what, then, now in (
        (
            "windows",
            {losses.protocol: len(losses.nll) for losses in stored.windows},
            {losses.protocol: len(losses.nll) for losses in found.windows},
        ),
        (
            "divergences",
            {far.protocol: len(far.kl) for far in stored.divergences},
            {far.protocol: len(far.kl) for far in found.divergences},
        ),
        (
            "questions",
            {task.protocol: task.n for task in stored.tasks},
            {task.protocol: task.n for task in found.tasks},
        ),
        (
            "answers",
            {stored.answers.prompts: len(stored.answers.answers)} if stored.answers else {},
            {found.answers.prompts: len(found.answers.answers)} if found.answers else {},
        ),
    ):
        for name in dict.fromkeys((*then, *now)):
            if then.get(name, 0) != now.get(name, 0):
                yield f"has {then.get(name, 0)} {what} of {name}, run again {now.get(name, 0)}"


def _windows(stored: Record, found: Record, exact: bool) -> Iterator[str]:
    if not exact:
        return  # their mean is held to a tolerance with the metrics
    again = {losses.protocol: losses.nll for losses in found.windows}
    for losses in stored.windows:
        pairs = list(zip(losses.nll, again.get(losses.protocol, ()), strict=False))
        if off := [n for n, (one, two) in enumerate(pairs) if not _near(one, two, EXACT, 0.0)]:
            one, two = pairs[off[0]]
            yield f"{len(off)} windows of {losses.protocol} have other losses: {one}, run again {two}"


def _tasks(stored: Record, found: Record, exact: bool) -> Iterator[str]:
    again: dict[str, TaskOutcomes] = {task.protocol: task for task in found.tasks}
    for task in stored.tasks:
        if task.protocol not in again:
            continue
        one, two = task.outcomes, again[task.protocol].outcomes
        if one is None or two is None:
            if one != two:
                yield f"{task.protocol} has outcomes in one of the two only"
            continue
        n_other = sum(a != b for a, b in zip(one, two, strict=False))
        if n_other > (0 if exact else ceil(task.n / QUESTIONS)):
            yield f"{n_other} of {task.n} questions of {task.protocol} were answered otherwise"


def _metrics(stored: Record, found: Record, exact: bool) -> Iterator[str]:
    kinds = kinds_of(stored)
    for metric in stored.metrics:
        if metric.name in COSTS or metric.name in SPEEDS:
            continue
        kind = kinds.get((metric.name, metric.protocol))
        if kind == "answers" and not exact:
            continue  # a greedy answer parts at the first near-tie, and then is another
        again = found.metric(metric.name, metric.protocol)
        named = f"{metric.name} {metric.protocol}".strip()
        if again is None:
            yield f"{named} is not there, run again"
            continue
        relative, absolute = (EXACT, 1e-9) if exact else _tolerance(metric, kind)
        if not _near(metric.value, again.value, relative, absolute):
            yield f"{named} is {metric.value}, run again {again.value}"
        elif metric.n != again.n:
            yield f"{named} is of {metric.n} items, run again of {again.n}"


def _tolerance(metric: Metric, kind: str | None) -> tuple[float, float]:
    """Relative and absolute, of a value from another machine."""
    share = 1 / QUESTIONS if not metric.n else ceil(metric.n / QUESTIONS) / metric.n
    share += 1e-9  # the difference of two shares is rounded
    if kind in ("perplexity", "divergence") and metric.name in _ELSEWHERE:
        return _ELSEWHERE[metric.name]
    if kind in ("sparsity", "size"):
        return EXACT, 1e-9
    # A flip needs one of two answers to change; the dense model's were given anew, too.
    return (1 / QUESTIONS, 2 * share) if kind == "flips" else (1 / QUESTIONS, share)


def _near(one: float | None, two: float | None, relative: float, absolute: float) -> bool:
    if one is None or two is None:
        return one is two
    return isclose(one, two, rel_tol=relative, abs_tol=absolute)


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


__all__ = ["compare_rerun", "input_that_differs"]
