"""A chapter of a setting: what was measured besides perplexity and cost, as tables over the same models."""

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
    """What one model said to a prompt, split where it parts from the dense model's answer."""

    label: str
    facts: str
    """Where it parts, how much it repeats, how likely the dense model finds it."""
    before: str
    differing: str = ""
    """The first character that differs, made visible; empty where none does."""
    after: str = ""
    is_as_dense: bool = False
    """Whether it is the dense model's answer, whose text is not said twice."""


@dataclass(frozen=True)
class Dialogue:
    """One prompt and what was said to it, the dense model first."""

    name: str
    kind: str
    prompt: str
    opening: str
    """The prompt's beginning, on one line."""
    replies: tuple[Reply, ...]
    agreed: str
    """How many models gave the dense one's answer."""


@dataclass(frozen=True)
class Part:
    """A table with what stands above and beneath it, its notes aside."""

    table: Table
    heading: str = ""
    """Empty where the chapter's title says it all."""
    dialogues: tuple[Dialogue, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """One kind of measurement of one setting."""

    name: str
    """Short, for anchors."""
    title: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know to read all its tables rightly."""


@dataclass(frozen=True)
class Subject:
    """One row of a chapter's tables."""

    label: str
    pattern: str | None
    record: Record

    @property
    def is_dense(self) -> bool:
        """Whether it is the model that the others are held against."""
        return self.record.cell.is_dense


def pruned_subjects(rankings: Sequence[Ranking]) -> list[Subject]:
    """All pruned models of a setting: pattern by pattern, best perplexity first."""
    return [Subject(e.label, r.pattern, e.record) for r in rankings for e in r.entries]


def dense_subjects(rankings: Sequence[Ranking]) -> list[Subject]:
    """The dense models of a setting, the newest first."""
    return [Subject("dense", None, record) for record in rankings[0].references]


def grouped(
    subjects: Iterable[Subject], keys: Callable[[Subject], Iterable[Key]]
) -> dict[Key, list[Subject]]:
    """Subjects by what was asked of them; of several dense models the first stands for all."""
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
    """A table with a row per subject: its name, its pattern, then the columns."""
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
    """A metric with its interval and what it takes to read it.

    Args:
        subjects: the rows.
        metrics: a row's each; None where it has none.
        title: of the heading, without the arrow.
        about: a line of the heading that says what is counted.
        unit: how values are written.
        item: what n counts, in the singular.
        says_why: whether a cell without a value says why; if not, it must be said beneath the table.
    """
    held = [metric for metric in metrics if metric is not None]
    direction = held[0].direction if held else "none"
    usual = usual_n(held)
    details = [visible(about), unit.name, f"n = {counted(usual, item)}" if usual is not None else ""]
    if any(metric.low is not None for metric in held):
        details.append("95\u00a0% interval")
    details.append(BETTER[direction])
    cells = [
        TableCell(MISSING) if metric is None and s.is_dense else metric_cell(metric, unit, usual, says_why)
        for s, metric in zip(subjects, metrics, strict=True)
    ]
    return numbers(f"{title} {ARROWS[direction]}".strip(), cells, "\n".join(filter(None, details)))


def metric_cell(metric: Metric | None, unit: Unit, usual_n: int | None, says_why: bool = True) -> TableCell:
    """A metric's value, its interval, and its n where that is not the one of the heading."""
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
    """The n that most have; None where nothing was counted."""
    counts = Counter(metric.n for metric in metrics if metric.n is not None and metric.value is not None)
    return counts.most_common(1)[0][0] if counts else None
