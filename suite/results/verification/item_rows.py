"""The side file's rows against the record: the same items, the same values, and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from suite.results.records.items import ItemRow, TaskOutcomes
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding


def check_items(subject: Subject) -> Iterator[Finding]:
    """Every row of the side file belongs to a window or a question of the record, and has its value."""
    assert subject.items is not None
    groups: dict[tuple[str, str], list[ItemRow]] = {}
    for row in subject.items:
        groups.setdefault((row.protocol, row.metric), []).append(row)
    record = subject.record
    n_tokens = {losses.protocol: losses.n_predicted for losses in record.windows}
    stored: list[tuple[str, str, Sequence[float | None]]] = [
        *((losses.protocol, "nll", losses.nll) for losses in record.windows),
        *((found.protocol, "kl", found.kl) for found in record.divergences),
        *((found.protocol, "agreement", found.agreement) for found in record.divergences),
    ]
    digests = {
        losses.protocol: [row.item_digest for row in groups.get((losses.protocol, "nll"), ())]
        for losses in record.windows
    }
    for protocol, metric, values in stored:
        rows = groups.pop((protocol, metric), [])
        if problem := _windows(rows, values, n_tokens.get(protocol), digests.get(protocol, [])):
            yield subject.problem("items", f"{protocol}, {metric}: {problem}")
    for outcomes in record.tasks:
        metrics = [metric for protocol, metric in groups if protocol == outcomes.protocol]
        of_task = {metric: groups.pop((outcomes.protocol, metric)) for metric in metrics}
        for problem in _questions(outcomes, of_task):
            yield subject.problem("items", f"{outcomes.protocol}, {problem}")
    for (protocol, metric), rows in groups.items():
        yield subject.problem(
            "items", f"{len(rows)} rows of {protocol}, {metric} belong to nothing in the record"
        )


def _windows(
    rows: Sequence[ItemRow], values: Sequence[float | None], n_tokens: int | None, digests: Sequence[str]
) -> str | None:
    """The first thing wrong with the rows of one window metric."""
    if problem := _order(rows, len(values)):
        return problem
    for row, value in zip(rows, values, strict=True):
        if row.value != value:
            return f"window {row.item} has {row.value} in the side file and {value} in the record"
        if row.n_tokens != n_tokens:
            return f"window {row.item} has {row.n_tokens} predicted tokens, not {n_tokens}"
        if (row.prompt_hash, row.target_hash) != (None, None):
            return f"window {row.item} has the hashes of a question"
    if [row.item_digest for row in rows] != list(digests):
        return "its windows have other digests than those of the losses"
    return None


def _questions(outcomes: TaskOutcomes, of_task: dict[str, list[ItemRow]]) -> Iterator[str]:
    """What is wrong with the rows of one task."""
    main = of_task.get(outcomes.metric, [])
    if problem := _order(main, outcomes.n):
        yield f"{outcomes.metric}: {problem}"
        return
    digest = hashlib.sha256()
    for row in main:
        digest.update(f"{row.item_digest}\0{row.prompt_hash}\0{row.target_hash}\n".encode())
    if digest.hexdigest() != outcomes.items_digest:
        yield f"{outcomes.metric}: its questions do not have the record's items_digest"
    hashes = [row[3:6] for row in main]
    for metric, rows in of_task.items():
        places = [row.item for row in rows]
        # A question may lack a score of another metric, as lm-eval has it; none has two.
        if places != sorted(set(places)) or not set(places) <= set(range(outcomes.n)):
            yield f"{metric}: its {len(rows)} rows are not questions 0 to {outcomes.n - 1}, each once"
        elif any(row[3:6] != hashes[row.item] for row in rows):
            yield f"{metric}: its questions have other hashes than those of {outcomes.metric}"
        if any(row.n_tokens is not None for row in rows):
            yield f"{metric}: a question has a number of predicted tokens"
    values = [row.value for row in main]
    graded = not values or any(value not in (0.0, 1.0) for value in values)
    due = None if graded else "".join("1" if value == 1.0 else "0" for value in values)
    if outcomes.outcomes != due:
        yield f"{outcomes.metric}: {_first_other(outcomes.outcomes, due)}"


def _order(rows: Sequence[ItemRow], n: int) -> str | None:
    places = [row.item for row in rows]
    if places == list(range(n)):
        return None
    if len(places) != n:
        return f"has {len(places)} rows in the side file and {n} items in the record"
    return f"its {n} rows are not items 0 to {n - 1} in their order, each once"


def _first_other(stored: str | None, due: str | None) -> str:
    if stored is None or due is None or len(stored) != len(due):
        return f"the record's outcomes are {_shown(stored)}, by the side file {_shown(due)}"
    item = next(i for i, (one, other) in enumerate(zip(stored, due, strict=True)) if one != other)
    return f"the record's outcome of question {item} is {stored[item]}, by the side file {due[item]}"


def _shown(outcomes: str | None) -> str:
    return "graded, so none" if outcomes is None else f"{len(outcomes)} of right or wrong"


__all__ = ["check_items"]
