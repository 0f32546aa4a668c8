"""Compares the rows of a side file with the record: same items, same values, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suite.results.records.items import ItemRow, TaskOutcomes
from suite.results.statistics.metrics import window_rows
from suite.results.statistics.task_items import items_digest, outcomes_of
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding


def check_items(subject: Subject) -> Iterator[Finding]:
    """Checks that every row of the side file belongs to an item of the record and has the same value."""
    assert subject.items is not None
    groups: dict[tuple[str, str], list[ItemRow]] = {}
    for row in subject.items:
        groups.setdefault((row.protocol, row.metric), []).append(row)
    record = subject.record
    n_tokens = {losses.protocol: losses.n_predicted for losses in record.windows}
    digests = {
        protocol: [row.item_digest for row in groups.get((protocol, "nll"), ())] for protocol in n_tokens
    }
    for protocol, metric, values in (
        *((losses.protocol, "nll", losses.nll) for losses in record.windows),
        *((found.protocol, "kl", found.kl) for found in record.divergences),
        *((found.protocol, "agreement", found.agreement) for found in record.divergences),
    ):
        rows, known = groups.pop((protocol, metric), []), digests.get(protocol, [])
        problem = _order(rows, len(values))
        if problem is None and len(known) != len(values):
            problem = "its windows are not those of the losses"
        elif problem is None:
            due = window_rows(protocol, metric, known, values, n_tokens.get(protocol))
            problem = _first_other(rows, due)
        if problem:
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


def _first_other(rows: Sequence[ItemRow], due: Sequence[ItemRow]) -> str | None:
    """Describes the first difference from the expected rows of one window metric; None if there is none."""
    for row, expected in zip(rows, due, strict=True):
        for column, one, other in zip(ItemRow._fields, row, expected, strict=True):
            if one != other:
                return f"window {row.item} has {column} {one} in the side file, by the record {other}"
    return None


def _questions(outcomes: TaskOutcomes, of_task: dict[str, list[ItemRow]]) -> Iterator[str]:
    """Yields what is wrong with the rows of one task."""
    main = of_task.get(outcomes.metric, [])
    if problem := _order(main, outcomes.n):
        yield f"{outcomes.metric}: {problem}"
        return
    hashes = [row[3:6] for row in main]
    if items_digest(hashes) != outcomes.items_digest:
        yield f"{outcomes.metric}: its questions do not have the record's items_digest"
    for metric, rows in of_task.items():
        places = [row.item for row in rows]
        # With lm-eval, a question may lack the score of another metric, but it never has two.
        if places != sorted(set(places)) or not set(places) <= set(range(outcomes.n)):
            yield f"{metric}: its {len(rows)} rows are not questions 0 to {outcomes.n - 1}, each once"
        elif any(row[3:6] != hashes[row.item] for row in rows):
            yield f"{metric}: its questions have other hashes than those of {outcomes.metric}"
        if any(row.n_tokens is not None for row in rows):
            yield f"{metric}: a question has a number of predicted tokens"
    stored, due = outcomes.outcomes, outcomes_of([row.value for row in main])
    if stored is None or due is None or len(stored) != len(due):
        if stored != due:
            shown = ["graded" if one is None else f"{len(one)} of right or wrong" for one in (stored, due)]
            yield f"{outcomes.metric}: the record's outcomes are {shown[0]}, by the side file {shown[1]}"
        return
    for item, (one, other) in enumerate(zip(stored, due, strict=True)):
        if one != other:
            yield (
                f"{outcomes.metric}: the record's outcome of question {item} is {one}, "
                f"by the side file {other}"
            )
            return


def _order(rows: Sequence[ItemRow], n: int) -> str | None:
    places = [row.item for row in rows]
    if places == list(range(n)):
        return None
    if len(places) != n:
        return f"has {len(places)} rows in the side file and {n} items in the record"
    return f"its {n} rows are not items 0 to {n - 1} in their order, each once"


__all__ = ["check_items"]
