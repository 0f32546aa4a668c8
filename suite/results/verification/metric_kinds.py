"""Which metrics a record may have, by name and protocol, and which check each of them belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from suite.results.records.record import Metric, Record
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES
from suite.results.statistics.model_metrics import PRUNE_COSTS, SIZES, SPEEDS, cost_metrics, speeds_of
from suite.results.statistics.task_items import FLIPS

Kind = Literal[
    "perplexity", "divergence", "tasks", "flips", "answers", "sparsity", "size", "cost", "speed", "group"
]
"""The check that forms it anew; or `speed`, which nothing in the record is behind; or a `group` of tasks."""

_DIVERGENCES, _ANSWERS = ([metric.name for metric in metrics] for metrics in (DIVERGENCES, ANSWERS))
_FLIPS = [name for name, _ in FLIPS]
_OURS = {*_DIVERGENCES, *_FLIPS, *_ANSWERS, *SIZES, *PRUNE_COSTS, *SPEEDS, "sparsity"}
"""Names that no task's score has. A task may have a `perplexity` of its own, as lambada does."""
COUNTED = "checkpoint"
"""The method of a checkpoint that does not say what pruned it, so that its zeros were counted."""


def kinds_of(record: Record) -> dict[tuple[str, str], Kind]:
    """Name and protocol of every metric that the record may have, as a run writes them -> its kind.

    What is not among them is backed by nothing in the record.
    """
    kinds = dict(_groups(record))
    for kind, protocol, names in _behind(record):
        kinds |= dict.fromkeys(((name, protocol) for name in names), kind)
    return kinds


def _behind(record: Record) -> Iterator[tuple[Kind, str, Iterable[str]]]:
    """Kind, protocol and names: of items first, then of the model as a whole."""
    cell = record.cell
    for losses in record.windows:
        yield "perplexity", losses.protocol, ["perplexity"]
    for found in record.divergences:
        yield "divergence", found.protocol, _DIVERGENCES
    for task in record.tasks:
        yield "flips", task.protocol, _FLIPS
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
    """The scores of groups: a group has no questions, and its score is one that its tasks have.

    A cell names a group and not the groups in it (MMLU's four), which have scores, too: where it names one,
    others are taken for groups in it.
    """
    tasks = {task.task for task in record.tasks}
    if not tasks or all(spec.name in tasks for spec in record.cell.tasks):
        return {}
    shots = {0, *(task.num_fewshot for task in record.tasks)}  # lm-eval's 0 where its tasks differ
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
    """The scores of tasks that a group's score may be a mean of."""
    asked = {task.protocol for task in record.tasks}
    return [metric for metric in record.metrics if metric.name == group.name and metric.protocol in asked]


__all__ = ["COUNTED", "Kind", "kinds_of", "members"]
