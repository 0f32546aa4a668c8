"""The metrics that a record may have, by name and protocol, and the check that covers each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from suite.results.records.record import Metric, Record
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES, PRODUCTION
from suite.results.statistics.model_metrics import PRUNE_COSTS, SIZES, SPEEDS, cost_metrics, speeds_of
from suite.results.statistics.task_items import FLIPS

Kind = Literal[
    "perplexity",
    "divergence",
    "tasks",
    "production",
    "flips",
    "answers",
    "sparsity",
    "size",
    "cost",
    "speed",
    "group",
]
"""The check that recomputes a metric; `speed` and `group` (of tasks) cannot be recomputed from the record."""

_DIVERGENCES, _PRODUCTION, _ANSWERS = (
    [metric.name for metric in metrics] for metrics in (DIVERGENCES, PRODUCTION, ANSWERS)
)
_FLIPS = [name for name, _ in FLIPS]
_OURS = {*_DIVERGENCES, *_PRODUCTION, *_FLIPS, *_ANSWERS, *SIZES, *PRUNE_COSTS, *SPEEDS, "sparsity"}
"""Names that scores of tasks never have. `perplexity` is not among them, as lambada has such a score."""
COUNTED = "checkpoint"
"""Method name for a checkpoint without information on its prune, for which the zeros are counted."""


def kinds_of(record: Record) -> dict[tuple[str, str], Kind]:
    """Maps name and protocol of every metric that the record may have to its kind.

    Other metrics are not based on anything in the record.
    """
    kinds = dict(_groups(record))
    for kind, protocol, names in _behind(record):
        kinds |= dict.fromkeys(((name, protocol) for name in names), kind)
    return kinds


def _behind(record: Record) -> Iterator[tuple[Kind, str, Iterable[str]]]:
    """Yields kind, protocol and names of metrics: first those of items, then those of the whole model."""
    cell = record.cell
    for losses in record.windows:
        yield "perplexity", losses.protocol, ["perplexity"]
    for found in record.divergences:
        yield "divergence", found.protocol, _DIVERGENCES
    for task in record.tasks:
        yield "flips", task.protocol, _FLIPS
        if task.right_answers is not None:
            yield "production", task.protocol, _PRODUCTION
        scores = {metric.name for metric in record.metrics if metric.protocol == task.protocol}
        yield "tasks", task.protocol, scores - _OURS
    if record.answers is not None:
        yield "answers", record.answers.protocol, _ANSWERS
    yield "size", cell.dtype, SIZES if record.modules else SIZES[:1]
    counted = cell.checkpoint is not None and cell.method == COUNTED
    if not cell.is_dense:
        yield "sparsity", "zeros" if counted else "target-modules", ["sparsity"]
    if cell.checkpoint is None:
        yield "cost", "", [metric.name for metric in cost_metrics(record.phases, record.shared)]
    elif not counted:
        yield "cost", "pruning.json", ["prune_seconds"]
    if cell.speed is not None:
        for name, protocol in speeds_of(cell.speed.prompt_tokens, cell.speed.new_tokens):
            yield "speed", protocol, [name]


def _groups(record: Record) -> Mapping[tuple[str, str], Kind]:
    """Finds the scores of groups: a group has no questions, and its score is also a score of its tasks.

    A cell names a group, but not its subgroups (MMLU has four), which have scores, too. Therefore, if a cell
    names a group, scores of unknown names are assumed to belong to its subgroups.
    """
    tasks = {task.task for task in record.tasks}
    if not tasks or all(spec.name in tasks for spec in record.cell.tasks):
        return {}
    # lm-eval reports 0 examples for a group if its tasks differ.
    shots = {0, *(task.num_fewshot for task in record.tasks)}
    return {
        (metric.name, metric.protocol): "group"
        for metric in record.metrics
        if metric.name not in _OURS
        and (match := re.fullmatch(r"(.+)-(\d{1,4})shot", metric.protocol))
        and match[1] not in tasks
        and int(match[2]) in shots
        and members(metric, record)
    }


def members(group: Metric, record: Record) -> list[Metric]:
    """Returns the scores of tasks that a group's score may be the mean of."""
    asked = {task.protocol for task in record.tasks}
    return [metric for metric in record.metrics if metric.name == group.name and metric.protocol in asked]


__all__ = ["COUNTED", "Kind", "kinds_of", "members"]
