"""Which metrics a record may have, by name and protocol, and which check each of them belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from suite.results.records.record import Metric, Record
from suite.results.statistics.metrics import ANSWERS, DIVERGENCES, SIZES

Kind = Literal[
    "perplexity", "divergence", "tasks", "flips", "answers", "sparsity", "size", "cost", "speed", "group"
]
"""The check that forms it anew; or `speed`, which nothing in the record is behind; or a `group` of tasks."""

FLIPS = ("flips_right_to_wrong", "flips_wrong_to_right")
COSTS = (
    *("prune_seconds", "own_prune_seconds"),
    *("peak_host_bytes", "peak_device_bytes", "prune_energy_joules"),
)
SPEEDS = tuple(
    f"{kernel}{phase}_tokens_per_second" for kernel in ("", "sparse_") for phase in ("prefill", "generation")
)
_DIVERGENCES = tuple(metric.name for metric in DIVERGENCES)
_ANSWERS = tuple(metric.name for metric in ANSWERS)
_OURS = {*_DIVERGENCES, *FLIPS, *_ANSWERS, *SIZES, *COSTS, *SPEEDS, "sparsity"}
"""Names that no task's score has. A task may have a `perplexity` of its own, as lambada does."""
COUNTED = "checkpoint"
"""The method of a checkpoint that does not say what pruned it, so that its zeros were counted."""


def kinds_of(record: Record) -> dict[tuple[str, str], Kind]:
    """Name and protocol of every metric that the record may have, as a run writes them -> its kind.

    What is not among them is backed by nothing in the record.
    """
    kinds: dict[tuple[str, str], Kind] = {}
    for losses in record.windows:
        kinds["perplexity", losses.protocol] = "perplexity"
    for found in record.divergences:
        kinds |= dict.fromkeys(((name, found.protocol) for name in _DIVERGENCES), "divergence")
    asked = {task.protocol for task in record.tasks}
    for protocol in asked:
        kinds |= dict.fromkeys(((name, protocol) for name in FLIPS), "flips")
    for metric in record.metrics:
        if metric.protocol in asked and metric.name not in _OURS:
            kinds[metric.name, metric.protocol] = "tasks"
    if record.answers is not None:
        kinds |= dict.fromkeys(((name, record.answers.protocol) for name in _ANSWERS), "answers")
    return {**_groups(record), **kinds, **dict(_of_the_model(record))}


def _of_the_model(record: Record) -> Iterator[tuple[tuple[str, str], Kind]]:
    """What was removed, what that saves, what it cost, and how fast the model is."""
    cell = record.cell
    for name in SIZES:
        yield (name, cell.dtype), "size"
    counted = cell.checkpoint is not None and cell.method == COUNTED
    if not cell.is_dense:
        yield ("sparsity", "zeros" if counted else "target-modules"), "sparsity"
    if cell.checkpoint is None:
        for name in COSTS:
            yield (name, ""), "cost"
    elif not counted:
        yield ("prune_seconds", "pruning.json"), "cost"
    if cell.speed is not None:
        read = f"b1-p{cell.speed.prompt_tokens}"
        for name in SPEEDS:
            yield (name, f"{read}-g{cell.speed.new_tokens}" if "generation" in name else read), "speed"


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


__all__ = [
    "COSTS",
    "COUNTED",
    "FLIPS",
    "SPEEDS",
    "Kind",
    "kinds_of",
    "members",
]
