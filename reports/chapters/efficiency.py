"""Size on disk, speed of prefill and generation, and the energy that pruning took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reports.chapters.chapter import (
    Chapter,
    Part,
    Subject,
    chapter_table,
    dense_subjects,
    metric_column,
    pruned_subjects,
)
from reports.rankings.frame import protocols_of, value_of
from reports.rankings.labels import SPEEDS
from reports.rankings.ranking import Ranking
from reports.tables import Column, TableCell, numbers
from reports.wording import MISSING, decimal, listed, mebibytes, pattern_name, visible
from suite.results.records.record import Record

_SIZES = {
    "checkpoint_bytes": ("Stored ↓", "every weight, zeros too"),
    "bitmask_bytes": ("With a bitmask ↓", "survivors and\na bit per weight"),
    "packed_bytes": ("N:M packed ↓", "survivors and\ntheir positions"),
}
_ENERGY = "prune_energy_joules"
_ABSENT = {
    "prefill_tokens_per_second": "Tokens per second",
    "packed_bytes": "N:M packed",
    "sparse_prefill_tokens_per_second": "Sparse kernels",
    "sparse_generation_tokens_per_second": "Sparse kernels",
    _ENERGY: "Prune energy",
}
"""Metrics whose missing values are explained below the table, and their names there."""


def efficiency_chapter(rankings: Sequence[Ranking]) -> Chapter | None:
    """Tables of bytes and of tokens per second, the dense model first."""
    measured = [s for s in pruned_subjects(rankings) if _is_measured(s.record)]
    subjects = [*_dense(rankings), *measured]
    parts = [part for part in (_size_part(subjects), _speed_part(subjects)) if part is not None]
    if not parts:
        return None
    # With dense kernels, prefill and generation are missing for the same reason.
    untimed = _absences(subjects, "prefill_tokens_per_second")
    parts[-1] = replace(parts[-1], table=parts[-1].table.noted(*untimed))
    return Chapter("efficiency", "Size and speed", tuple(parts))


def _size_part(subjects: Sequence[Subject]) -> Part | None:
    sized = [s for s in subjects if any(value_of(s.record, name) is not None for name in _SIZES)]
    if not sized:
        return None
    base = next((value_of(s.record, "checkpoint_bytes") for s in sized if s.is_dense), None)
    shown = [name for name in _SIZES if any(value_of(s.record, name) is not None for s in sized)]
    columns = [_size_column(sized, name, base) for name in shown]
    return Part(chapter_table("size", sized, columns).noted(*_absences(sized, *shown)), "Size")


def _speed_part(subjects: Sequence[Subject]) -> Part | None:
    """Tokens per second, and the energy of the prune if a machine measured it."""
    costs = (*SPEEDS, _ENERGY)
    timed = [s for s in subjects if any(value_of(s.record, name) is not None for name in costs)]
    if not timed:
        return None
    columns = [
        _speed_column(timed, name, protocol)
        for name in SPEEDS
        for protocol in protocols_of([s.record for s in timed], name)
    ]
    notes = [*_absences(timed, *(name for name in SPEEDS if name.startswith("sparse_")))]
    if columns:
        notes.append(
            "One sequence at a time (b1): p prompt tokens read in one pass, g tokens generated. Intervals "
            "are over repeats on one machine; speeds of two machines are not comparable. Dense kernels "
            "multiply the zeros too, so pruning does not speed them up."
        )
    if any(value_of(s.record, _ENERGY) is not None for s in timed):
        columns.append(_energy_column(timed))
        notes += _absences(timed, _ENERGY)
    return Part(chapter_table("speed", timed, columns).noted(*notes), "Speed")


def _dense(rankings: Sequence[Ranking]) -> list[Subject]:
    """Selects one dense model, preferably one with speeds: they may have been measured on an older record."""
    found = [s for s in dense_subjects(rankings) if _is_measured(s.record)]
    timed = [s for s in found if any(value_of(s.record, name) is not None for name in SPEEDS)]
    return (timed or found)[:1]


def _is_measured(record: Record) -> bool:
    return any(m.name in _SIZES or m.name in SPEEDS or m.name == _ENERGY for m in record.metrics)


def _size_column(subjects: Sequence[Subject], name: str, base: float | None) -> Column:
    title, about = _SIZES[name]
    cells = [_size_cell(value_of(s.record, name), base) for s in subjects]
    return numbers(title, cells, f"MiB\n{about}\nratio to dense\nlower is better")


def _size_cell(n_bytes: float | None, base: float | None) -> TableCell:
    if n_bytes is None:
        return TableCell(MISSING)
    return TableCell(mebibytes(n_bytes), f"{decimal(n_bytes / base, 3)} × dense" if base else "")


def _speed_column(subjects: Sequence[Subject], name: str, protocol: str) -> Column:
    return metric_column(
        subjects,
        [s.record.metric(name, protocol) for s in subjects],
        title=SPEEDS[name].title,
        about=f"{SPEEDS[name].about}, {protocol}",
        unit=SPEEDS[name].unit,
        item="repeat",
        says_why=False,
    )


def _energy_column(subjects: Sequence[Subject]) -> Column:
    cells = []
    for subject in subjects:
        joules = value_of(subject.record, _ENERGY)
        meters = " + ".join(map(visible, subject.record.environment.energy_meters))
        cells.append(TableCell(decimal(joules, 0), meters if joules is not None else ""))
    return numbers("Prune energy ↓", cells, "J, of these counters\none run\nlower is better")


def _absences(subjects: Sequence[Subject], *names: str) -> tuple[str, ...]:
    """Lists why these metrics have no value, each reason once, with the patterns that it applies to."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for subject in subjects:
        for metric in subject.record.metrics:
            if metric.value is None and metric.name in names:
                label = (_ABSENT.get(metric.name, metric.name), visible(metric.status))
                reasons.setdefault(label, {})[pattern_name(subject.pattern)] = None
    return tuple(
        f"{what}, {listed(list(patterns))}: {status}." for (what, status), patterns in reasons.items()
    )
