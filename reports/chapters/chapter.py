"""A chapter of a setting: tables of what was measured besides perplexity and cost, for the same models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from reports.rankings.frame import cell_id
from reports.rankings.ranking import Ranking
from reports.tables import Column, Table, TableCell, numbers, words
from reports.wording import ARROWS, BETTER, MISSING, Unit, counted, pattern_name, visible
from suite.results.records.record import Metric, Record

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Reply:
    """One model's answer to a prompt, split at the first character that differs from the dense model's
    answer.
    """

    label: str
    facts: str
    """Where it diverges, how much it repeats itself, and how likely the dense model finds it."""
    before: str
    differing: str = ""
    """The first character that differs, made visible; empty if none does."""
    after: str = ""
    is_as_dense: bool = False
    """Whether it equals the dense model's answer, whose text is not repeated."""


@dataclass(frozen=True)
class Dialogue:
    """One prompt and the answers to it, the dense model's first."""

    name: str
    kind: str
    prompt: str
    opening: str
    """The beginning of the prompt, on one line."""
    replies: tuple[Reply, ...]
    agreed: str
    """How many models gave the same answer as the dense one."""


@dataclass(frozen=True)
class Part:
    """A table with its heading above it and its dialogues below it."""

    table: Table
    heading: str = ""
    """Empty if the title of the chapter is enough."""
    dialogues: tuple[Dialogue, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """One kind of measurement in one setting."""

    name: str
    """Short name, used in anchors."""
    title: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    """Explanations needed to read its tables correctly."""


@dataclass(frozen=True)
class Subject:
    """One row of a chapter's tables."""

    label: str
    pattern: str | None
    record: Record

    @property
    def is_dense(self) -> bool:
        """Whether it is the dense model, with which the others are compared."""
        return self.record.cell.is_dense


def pruned_subjects(rankings: Sequence[Ranking]) -> list[Subject]:
    """Returns all pruned models of a setting, grouped by pattern, best perplexity first."""
    return [Subject(e.label, r.pattern, e.record) for r in rankings for e in r.entries]


def dense_subjects(rankings: Sequence[Ranking]) -> list[Subject]:
    """Returns the dense models of a setting, newest first."""
    return [Subject("dense", None, record) for record in rankings[0].references]


def grouped(
    subjects: Iterable[Subject], keys: Callable[[Subject], Iterable[Key]]
) -> dict[Key, list[Subject]]:
    """Groups subjects by what was measured on them; each group keeps only the first dense model."""
    groups: dict[Key, list[Subject]] = {}
    for subject in subjects:
        for key in keys(subject):
            among = groups.setdefault(key, [])
            if not (subject.is_dense and among):
                among.append(subject)
    return groups


def chapter_table(
    caption: str, subjects: Sequence[Subject], columns: Sequence[Column], *, named: str = "Method"
) -> Table:
    """Builds a table with one row per subject: its name, its pattern, then the columns."""
    names = (
        words(named, [TableCell(s.label, link=cell_id(s.record)) for s in subjects], "with its settings"),
        words("Pattern", [pattern_name(s.pattern) for s in subjects]),
    )
    return Table(caption, (*names, *columns))


def metric_column(
    subjects: Sequence[Subject],
    metrics: Sequence[Metric | None],
    *,
    title: str,
    about: str,
    unit: Unit,
    item: str,
    says_why: bool = True,
) -> Column:
    """Builds the column of a metric with its interval and the details needed to read it.

    Args:
        subjects: the rows.
        metrics: one metric per row; None if the row has none.
        title: the heading, without the arrow.
        about: a line of the heading that explains what is counted.
        unit: how values are written.
        item: what n counts, in the singular.
        says_why: whether a cell without a value shows the reason; if not, explain it below the table.
    """
    measured = [metric for metric in metrics if metric is not None]
    direction = measured[0].direction if measured else "none"
    usual = usual_n(measured)
    details = [visible(about), unit.name, f"n = {counted(usual, item)}" if usual is not None else ""]
    if any(metric.low is not None for metric in measured):
        details.append("95\u00a0% interval")
    details.append(BETTER[direction])
    cells = [
        TableCell(MISSING) if metric is None and s.is_dense else metric_cell(metric, unit, usual, says_why)
        for s, metric in zip(subjects, metrics, strict=True)
    ]
    return numbers(f"{title} {ARROWS[direction]}".strip(), cells, "\n".join(filter(None, details)))


def metric_cell(metric: Metric | None, unit: Unit, usual_n: int | None, says_why: bool = True) -> TableCell:
    """Builds the cell of a metric: its value, its interval, and its n if it differs from the one in the
    heading.
    """
    if metric is None:
        return TableCell(MISSING, "not measured" if says_why else "")
    if metric.value is None:
        return TableCell(MISSING, visible(metric.status) if says_why else "")
    details = [unit.interval(metric.low, metric.high)]
    if not details[0] and metric.stderr is not None:
        details = [f"standard error {unit.value(metric.stderr)}"]
    if metric.n is not None and metric.n != usual_n:
        details.append(f"n = {metric.n:,}")
    return TableCell(unit.value(metric.value), ", ".join(filter(None, details)))


def usual_n(metrics: Sequence[Metric]) -> int | None:
    """Returns the most common n; None if nothing was counted."""
    counts = Counter(metric.n for metric in metrics if metric.n is not None and metric.value is not None)
    return counts.most_common(1)[0][0] if counts else None
