"""Compares a record with a rerun of its cell: which numbers must agree, and how closely."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from suite.results.records.record import Metric, Record
from suite.results.records.state import code_difference
from suite.results.statistics.metrics import DIVERGENCES, LOSSES
from suite.results.verification.arithmetic import same
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import Kind, kinds_of

EXACT = 1e-6
"""Relative tolerance on an equivalent machine; what a CPU's scheduling can still change is far less."""
_ELSEWHERE = {of.name: of.elsewhere for of in LOSSES} | {of.name: of.elsewhere for of in DIVERGENCES}
QUESTIONS = 50
"""On another machine, one in this many questions may be answered differently, and at least one."""


def one_machine(one: Record, other: Record) -> bool:
    """Whether two records were made on machines that compute bit-identical numbers: CPUs, never GPUs.

    On a GPU, the order of summation may change from run to run.
    """
    here, there = one.environment, other.environment
    return here.device == there.device == "cpu" and all(
        getattr(here, field) == getattr(there, field)
        for field in ("processor", "threads", "packages", "native_bf16")
    )


def same_machine_and_code(one: Record, other: Record) -> bool:
    """Whether the same machine, or an equivalent one, made two records with the same code."""
    return one_machine(one, other) and one.code.source_digest == other.code.source_digest


def input_that_differs(stored: Record, found: Record) -> str | None:
    """Describes an input that differs in a rerun, so that it proves nothing; None if all are the same."""
    now = _inputs(found)
    for what, digest in _inputs(stored).items():
        if digest != now.get(what):
            return f"{what} are others: digest {_short(now.get(what))}, not {_short(digest)}"
    return None


def _inputs(record: Record) -> dict[str, str | None]:
    """Maps each input of a record, as named in messages, to its digest."""
    answers = record.answers
    return {
        f"the weights of {record.cell.model}": record.model.weight_digest if record.model else None,
        "the calibration tokens": record.calibration.digest if record.calibration else None,
        **{f"the tokens of {losses.protocol}": losses.corpus_digest for losses in record.windows},
        **{f"the questions of {task.protocol}": task.items_digest for task in record.tasks},
        **({"the prompts": answers.prompts_digest} if answers else {}),
    }


def _counts(record: Record) -> dict[str, int]:
    """Counts the items of each kind, because a digest is only a claim and may be that of more items."""
    answers = record.answers
    return {
        **{f"windows of {losses.protocol}": len(losses.nll) for losses in record.windows},
        **{f"divergences of {found.protocol}": len(found.kl) for found in record.divergences},
        **{f"questions of {task.protocol}": task.n for task in record.tasks},
        **({f"answers of {answers.prompts}": len(answers.answers)} if answers else {}),
    }


def compare_rerun(subject: Subject, found: Record) -> Iterator[Finding]:
    """Compares a record with a rerun that read the same inputs; times are never compared.

    Args:
        subject: the record.
        found: the record of the rerun.
    """
    stored = subject.record
    exact = one_machine(stored, found) and not _halved(stored, found)
    then, now = _counts(stored), _counts(found)
    messages = [
        *(
            f"has {then.get(items, 0)} {items}, run again {now.get(items, 0)}"
            for items in dict.fromkeys((*then, *now))
            if then.get(items, 0) != now.get(items, 0)
        ),
        *(losses_that_differ(stored, found) if exact else ()),  # otherwise only the mean is compared
        *_tasks(stored, found, exact),
        *_metrics(stored, found, exact),
    ]
    if exact and stored.answers is not None and found.answers is not None:
        texts = zip(stored.answers.answers, found.answers.answers, strict=False)  # counts are compared above
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
        and not _halved(stored, found)
    )


def _halved(stored: Record, found: Record) -> bool:
    """Whether memory ran out in either run, because smaller batches change rounding."""
    return any("memory ran out" in warning for record in (stored, found) for warning in record.warnings)


def losses_that_differ(one: Record, other: Record) -> Iterator[str]:
    """Describes the texts with the same tokens but different losses in two records, one sentence each."""
    theirs = {losses.protocol: losses for losses in other.windows}
    for losses in one.windows:
        found = theirs.get(losses.protocol)
        if found is None or found.corpus_digest != losses.corpus_digest:
            continue
        pairs = zip(losses.nll, found.nll, strict=False)
        if off := [(a, b) for a, b in pairs if not same(a, b, EXACT)]:
            yield f"{len(off)} windows of {losses.protocol} have other losses: {off[0][0]} and {off[0][1]}"


def _tasks(stored: Record, found: Record, exact: bool) -> Iterator[str]:
    again = {task.protocol: task.outcomes for task in found.tasks}
    for task in stored.tasks:
        if task.protocol not in again:
            continue
        one, two = task.outcomes, again[task.protocol]
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
        kind = kinds.get((metric.name, metric.protocol))
        if kind in ("cost", "speed"):
            continue
        if kind == "answers" and not exact:
            continue  # a greedy answer changes at the first near-tie, and differs from there on
        again = found.metric(metric.name, metric.protocol)
        named = f"{metric.name} {metric.protocol}".strip()
        if again is None:
            yield f"{named} is not there, run again"
            continue
        relative, absolute = (EXACT, 1e-9) if exact else _tolerance(metric, kind)
        if not same(metric.value, again.value, relative, absolute):
            yield f"{named} is {metric.value}, run again {again.value}"
        elif metric.n != again.n:
            yield f"{named} is of {metric.n} items, run again of {again.n}"


def _tolerance(metric: Metric, kind: Kind | None) -> tuple[float, float]:
    """Returns the relative and absolute tolerance for a value from another machine."""
    share = 1 / QUESTIONS if not metric.n else ceil(metric.n / QUESTIONS) / metric.n
    share += 1e-9  # the difference of two shares is rounded
    if kind in ("perplexity", "divergence") and (elsewhere := _ELSEWHERE[metric.name]):
        return elsewhere
    if kind in ("sparsity", "size"):
        return EXACT, 1e-9
    # A flip may result from a change of either answer, and the dense model's answers were recomputed, too.
    return 1 / QUESTIONS, 2 * share if kind == "flips" else share


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


__all__ = [
    "compare_rerun",
    "input_that_differs",
    "losses_that_differ",
    "one_machine",
    "same_machine_and_code",
]
