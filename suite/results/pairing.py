"""Two records held against each other, item by item: what differs, how surely, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from suite.results.items import TaskOutcomes, WindowDivergence, WindowLosses
from suite.results.paired import PairedDifference, holm, mcnemar, paired_bootstrap
from suite.results.record import Record

Items = TypeVar("Items", WindowLosses, TaskOutcomes)

LOG_PERPLEXITY = "log_perplexity"
"""The metric that window losses are compared by: its differences are ratios of perplexities."""


@dataclass(frozen=True)
class PairedMetric:
    """One metric of two records.

    Attributes:
        name: `log_perplexity`, `kl_divergence`, or a task's metric.
        protocol: of both.
        difference: the second record's value minus the first's; None where they cannot be compared.
        low: lower end of its 95 % interval; None without one.
        high: upper end; None likewise.
        p_value: two-sided, of no difference: the paired bootstrap's sign flips for windows, McNemar's exact
            test for questions.
        adjusted: `p_value` by Holm over all tasks of the pair; the same as `p_value` for windows.
        n: items that both measured.
        reason: why there is no difference; empty where there is one.
    """

    name: str
    protocol: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    adjusted: float | None = None
    n: int = 0
    reason: str = ""


def pair_records(first: Record, second: Record) -> list[PairedMetric]:
    """Compares what two records measured on the same items.

    Args:
        first: the record that is compared with, a baseline or the dense model's.
        second: the other one.

    Returns:
        Window metrics, then tasks, each protocol that one of them has; those that cannot be compared say why.

    Raises:
        ValueError: nothing of the two can be compared (another model, another dtype, a failed cell): why.
    """
    if (reason := _why_not(first, second)) is not None:
        raise ValueError(reason)
    tasks = list(_tasks(first, second))
    adjusted = holm([task.p_value for task in tasks])
    return [
        *_windows(first, second),
        *(replace(task, adjusted=p) for task, p in zip(tasks, adjusted, strict=True)),
    ]


def _why_not(first: Record, second: Record) -> str | None:
    """What makes two records incomparable as a whole; None if nothing does."""
    for record in (first, second):
        if record.status != "complete" or record.model is None:
            return f"{record.cell.label} has no numbers: its cell failed"
    one, other = first.model, second.model
    assert one is not None and other is not None
    if one.dtype != other.dtype:
        return f"the dtypes differ: {one.dtype} and {other.dtype}"
    if one.weight_digest != other.weight_digest:
        names = [f"{model.name} ({model.weight_digest[:12]})" for model in (one, other)]
        return f"the dense models differ: {' and '.join(names)}"
    return None


def _windows(first: Record, second: Record) -> Iterator[PairedMetric]:
    ours, theirs = _by_protocol(first.windows), _by_protocol(second.windows)
    kl = {d.protocol: d for d in first.divergences}, {d.protocol: d for d in second.divergences}
    for protocol in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(protocol), theirs.get(protocol)
        reason = _other_windows(one, other)
        if reason or one is None or other is None:
            yield PairedMetric(LOG_PERPLEXITY, protocol, reason=reason)
            continue
        yield _difference(LOG_PERPLEXITY, protocol, other.nll, one.nll)
        diverged = kl[0].get(protocol), kl[1].get(protocol)
        if any(diverged):
            yield _divergence(protocol, *diverged)


def _divergence(
    protocol: str, first: WindowDivergence | None, second: WindowDivergence | None
) -> PairedMetric:
    if first is None or second is None:
        return PairedMetric("kl_divergence", protocol, reason=f"{_which(first)} did not measure it")
    return _difference("kl_divergence", protocol, second.kl, first.kl)


def _difference(
    name: str, protocol: str, second: Sequence[float | None], first: Sequence[float | None]
) -> PairedMetric:
    found: PairedDifference = paired_bootstrap(second, first)
    reason = "" if found.value is not None else found.status
    return PairedMetric(
        name, protocol, found.value, found.low, found.high, found.p_value, found.p_value, found.n, reason
    )


def _tasks(first: Record, second: Record) -> Iterator[PairedMetric]:
    ours, theirs = _by_protocol(first.tasks), _by_protocol(second.tasks)
    for protocol in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(protocol), theirs.get(protocol)
        name = (one or other or first.tasks[0]).metric
        reason = _other_questions(one, other)
        if reason or one is None or other is None or one.outcomes is None or other.outcomes is None:
            yield PairedMetric(name, protocol, reason=reason)
            continue
        flips = mcnemar([int(o) for o in one.outcomes], [int(o) for o in other.outcomes])
        assert flips.wrong_to_right is not None and flips.right_to_wrong is not None
        difference = (flips.wrong_to_right - flips.right_to_wrong) / flips.n
        yield PairedMetric(name, protocol, difference, p_value=flips.p_value, n=flips.n)


def _other_windows(first: WindowLosses | None, second: WindowLosses | None) -> str:
    """Why two window lists are not of the same items; empty where they are."""
    if first is None or second is None:
        return f"{_which(first)} did not measure it"
    differing = {
        "corpus": (first.corpus_digest, second.corpus_digest),
        "token limit": (first.limit, second.limit),
        "number of windows": (len(first.nll), len(second.nll)),
    }
    return _named(differing)


def _other_questions(first: TaskOutcomes | None, second: TaskOutcomes | None) -> str:
    """Why two lists of outcomes are not of the same questions; empty where they are."""
    if first is None or second is None:
        return f"{_which(first)} was not asked"
    if first.outcomes is None or second.outcomes is None:
        return "its answers are graded, not right or wrong"
    differing: dict[str, tuple[object, object]] = {
        "task version": (first.version, second.version),
        "limit": (first.limit, second.limit),
        "metric": (first.metric, second.metric),
        "questions": (first.items_digest, second.items_digest),
    }
    return _named(differing)


def _named(differing: Mapping[str, tuple[object, object]]) -> str:
    """The first thing that differs, with both values where these say something."""
    for what, (one, other) in differing.items():
        if one != other:
            if what in ("corpus", "questions"):  # digests say nothing to a reader
                return f"other {what}" if what == "questions" else f"another {what}"
            return f"another {what}: {one} and {other}"
    return ""


def _which(first: object) -> str:
    return "the first record" if first is None else "the second record"


def _by_protocol(items: Sequence[Items]) -> dict[str, Items]:
    return {item.protocol: item for item in items}


__all__ = ["LOG_PERPLEXITY", "PairedMetric", "pair_records"]
