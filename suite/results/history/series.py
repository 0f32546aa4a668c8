"""A metric over months: one series a cell, cut where its values stop being comparable, its changes marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from methods.errors import InputError, did_you_mean
from suite.cell import Cell
from suite.results.history.changes import Findings, find_changes
from suite.results.history.reference_ratio import factor_of, unit_of
from suite.results.records.comparability import differences, machine_ground, machine_of
from suite.results.records.index import (
    FAILED_SUFFIX,
    NO_DATE,
    Contents,
    StoredRecord,
    UnreadableRecord,
    read_index,
    record_files,
)
from suite.results.records.record import Metric, Record
from suite.results.statistics.model_metrics import PRUNE_COSTS, SPEEDS

By = Literal["date", "commit"]
_Ground = tuple[tuple[str, object], ...]
"""(what, value) of everything that comparable values share."""

QUALITY_TOLERANCE = 0.01
"""Relative change of a perplexity, an accuracy... that matters."""
COST_TOLERANCE = 0.1
"""Relative change of a time, a rate, an energy or a peak of memory that matters."""
_OF_THE_MACHINE = (*PRUNE_COSTS, *SPEEDS)


@dataclass(frozen=True)
class Point:
    """One value.

    Attributes:
        created: when it was measured, UTC.
        commit: of the code, eight digits; None when it was installed from a wheel.
        clean: whether that working tree was clean; None without one.
        value: in the unit of the series.
        low: lower end of its 95 % interval over items, not over runs; None without one.
        high: upper end; None likewise.
        n: items behind the value.
        path: the record it was read from.
        body_digest: of that record, as its file has it.
        prunebench: version that made it.
        source_digest: of the code that decides the numbers.
        packages: (name, version) of what they depend on besides.
        machine: processor, cores, threads and device, in words.
        runs: records of this commit, of which this one has the middle value; 1 over dates.
    """

    created: datetime
    commit: str | None
    clean: bool | None
    value: float
    low: float | None
    high: float | None
    n: int | None
    path: Path
    body_digest: str
    prunebench: str
    source_digest: str
    packages: tuple[tuple[str, str], ...]
    machine: str
    runs: int = 1

    @property
    def version(self) -> str:
        """Whose number it is: the commit, `+` where the tree was not clean; else version and source."""
        if self.commit is None:
            return f"{self.prunebench}/{self.source_digest[:8]}"
        return self.commit if self.clean else f"{self.commit}+"


@dataclass(frozen=True)
class Absence:
    """A record that should have a value and has none; `status` says why."""

    created: datetime
    path: Path
    status: str


@dataclass(frozen=True)
class Segment:
    """Points that may be compared with one another; two segments may overlap in time (two machines).

    Attributes:
        points: in order of time.
        reason: what is other than in the segment that began before it; empty for the first.
        findings: the changes and outliers among its points, by index.
    """

    points: tuple[Point, ...]
    reason: str
    findings: Findings


@dataclass(frozen=True)
class Series:
    """One metric of one cell.

    Attributes:
        cell: what was asked, again and again.
        digest: its digest.
        label: the cell's, with the start of the digest where several cells share one.
        metric: name of the metric.
        protocol: its protocol; empty for costs of the machine.
        unit: empty where values are as recorded; else what they are multiples of.
        direction: which way is better.
        tolerance: relative change that is too small to be marked.
        segments: in order of their first points.
        absent: records without a value, in order of time.
    """

    cell: Cell
    digest: str
    label: str
    metric: str
    protocol: str
    unit: str
    direction: Literal["higher", "lower", "none"]
    tolerance: float
    segments: tuple[Segment, ...]
    absent: tuple[Absence, ...]

    def is_better(self, before: float, after: float) -> bool | None:
        """Whether the change is for the better; None where neither way is."""
        if self.direction == "none":
            return None
        return (after > before) == (self.direction == "higher")


def read_history(paths: Sequence[Path]) -> Contents:
    """All finished records below `paths`, in order of time; copies of a file count once.

    Args:
        paths: folders, searched at any depth, so that results trees of many dates may stand side by side in
            one; a record's own file will do too.

    Raises:
        InputError: there is no such folder or file, or no finished record that can be read.
    """
    # Failed ones have no numbers.
    files = [file for file in record_files(paths) if not file.name.endswith(FAILED_SUFFIX)]
    contents = read_index(files)
    found: dict[str, StoredRecord] = {}
    unreadable = list(contents.unreadable)
    for stored in contents.records:
        if stored.record.status != "complete":
            continue
        if stored.created == NO_DATE:
            unreadable.append(UnreadableRecord(stored.path, f"created is no date: {stored.record.created!r}"))
        else:
            found.setdefault(stored.digest, stored)
    if not found:
        places = ", ".join(map(str, paths))
        broken = f" that can be read ({len(unreadable)} cannot)" if unreadable else ""
        raise InputError(f"{places}: no finished records{broken}; prunebench run writes them")
    records = sorted(found.values(), key=lambda stored: (stored.created, str(stored.path)))
    return Contents(tuple(records), tuple(unreadable))


def history_of(
    records: Sequence[StoredRecord],
    metric: str = "perplexity",
    *,
    protocol: str | None = None,
    by: By = "date",
    tolerance: float | None = None,
) -> tuple[Series, ...]:
    """The series of a metric, one per cell and protocol.

    Args:
        records: finished ones, in order of time.
        metric: its name in the records.
        protocol: only this one; None = each that has the metric.
        by: `date`, a point a record; `commit`, a point a commit: of its records the one with the middle
            value. Records of a tree that was not clean stay apart.
        tolerance: relative change that is too small to be marked; None = `QUALITY_TOLERANCE`, or
            `COST_TOLERANCE` where the machine decides.

    Raises:
        InputError: no record has such a metric, or not with that protocol.
    """
    _check_known(records, metric, protocol)
    if tolerance is None:
        tolerance = COST_TOLERANCE if metric in _OF_THE_MACHINE else QUALITY_TOLERANCE
    grouped: dict[tuple[str, str], list[tuple[StoredRecord, Metric]]] = {}
    for stored in records:
        for found in stored.record.metrics:
            if found.name == metric and protocol in (None, found.protocol):
                grouped.setdefault((stored.cell_digest, found.protocol), []).append((stored, found))
    labels = _labels(records)
    series = [_series(rows, labels, by, tolerance) for rows in grouped.values()]
    return tuple(sorted(series, key=lambda one: (one.cell.model, one.label, one.digest, one.protocol)))


def _check_known(records: Sequence[StoredRecord], metric: str, protocol: str | None) -> None:
    metrics = [metric for stored in records for metric in stored.record.metrics]
    known = dict.fromkeys(found.name for found in metrics)
    if metric not in known:
        raise InputError(f"no record has a metric {metric!r}{did_you_mean(metric, sorted(known))}")
    protocols = {found.protocol for found in metrics if found.name == metric}
    if protocol is not None and protocol not in protocols:
        near = did_you_mean(protocol, sorted(protocols - {""}))
        raise InputError(f"no record has {metric} with protocol {protocol!r}{near}")


def _labels(records: Sequence[StoredRecord]) -> dict[str, str]:
    """Cell digest -> a label that no other cell has."""
    cells = {stored.cell_digest: stored.record.cell for stored in records}
    taken: dict[str, int] = {}
    for cell in cells.values():
        taken[cell.label] = taken.get(cell.label, 0) + 1
    return {
        digest: cell.label if taken[cell.label] == 1 else f"{cell.label} [{digest[:8]}]"
        for digest, cell in cells.items()
    }


def _series(
    rows: Sequence[tuple[StoredRecord, Metric]], labels: dict[str, str], by: By, tolerance: float
) -> Series:
    first, metric = rows[0]
    measured = [(stored, found) for stored, found in rows if found.value is not None]
    # One unit for all: where some records lack a reference speed, the whole series is shown as recorded.
    units = {unit_of(stored.record, metric.name) for stored, _ in measured}
    unit = units.pop() if len(units) == 1 else ""
    groups: dict[_Ground, list[Point]] = {}
    for stored, found in measured:
        point = _point(stored, found, factor_of(stored.record, metric.name) if unit else 1.0)
        groups.setdefault(_ground(stored.record, found, scaled=bool(unit)), []).append(point)
    return Series(
        cell=first.record.cell,
        digest=first.cell_digest,
        label=labels[first.cell_digest],
        metric=metric.name,
        protocol=metric.protocol,
        unit=unit,
        direction=rows[-1][1].direction,
        tolerance=tolerance,
        segments=tuple(_segments(groups, by, tolerance)),
        absent=tuple(
            Absence(stored.created, stored.path, found.status)
            for stored, found in rows
            if found.value is None
        ),
    )


def _ground(record: Record, metric: Metric, *, scaled: bool) -> _Ground:
    """On what ground a value of a cell stands, which may be `scaled` by the machine's reference speed."""
    model, calibration = record.model, record.calibration
    found: dict[str, object] = {
        "weights": model.weight_digest if model else None,
        "dtype": model.dtype if model else None,
        "calibration tokens": calibration.digest if calibration else None,
        "number of threads": record.environment.threads,
    }
    for protocol, kind, digest, extent in _items(record):
        if protocol == metric.protocol:
            found |= {kind: digest, "extent": extent}
    if metric.name in _OF_THE_MACHINE:
        found |= machine_ground(record)
        if scaled and record.reference_speed is not None:
            found["batch of the machine's reference speed"] = (
                f"{record.reference_speed.batch_size} x {record.reference_speed.seqlen} tokens"
            )
    return tuple(found.items())


def _items(record: Record) -> Iterator[tuple[str, str, str, str]]:
    """What identifies the items behind the metrics of each protocol: it, their kind, digest and extent."""
    for window in record.windows:
        extent = f"{len(window.nll)} windows of {window.seqlen}"
        yield window.protocol, "corpus", window.corpus_digest, extent
    for task in record.tasks:
        yield task.protocol, "questions", task.items_digest, f"{task.n} questions, version {task.version}"
    if (answers := record.answers) is not None:
        # Another batch size alone parts answers.
        yield answers.protocol, "prompts", answers.prompts_digest, f"batches of {answers.batch_size}"


def _segments(groups: dict[_Ground, list[Point]], by: By, tolerance: float) -> Iterator[Segment]:
    before: _Ground | None = None
    for key, points in groups.items():
        shown = points if by == "date" else list(_by_commit(points))
        findings = find_changes([point.value for point in shown], tolerance=tolerance)
        other = [] if before is None else differences(dict(before), dict(key))
        yield Segment(tuple(shown), "; ".join(other), findings)
        before = key


def _by_commit(points: Iterable[Point]) -> Iterator[Point]:
    """A point a commit, in order of first appearance: of its runs the one with the (lower) middle value."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        # Two trees with changes of their own are two versions, whatever commit they began from.
        own = f"{point.version} {point.body_digest}" if point.commit and not point.clean else point.version
        groups.setdefault(own, []).append(point)
    for runs in groups.values():
        middle = sorted(runs, key=lambda point: point.value)[(len(runs) - 1) // 2]
        yield replace(middle, runs=len(runs))


def _point(stored: StoredRecord, metric: Metric, factor: float) -> Point:
    assert metric.value is not None
    record = stored.record
    commit = record.code.git_commit
    return Point(
        created=stored.created,
        commit=commit[:8] if commit else None,
        clean=record.code.git_clean,
        value=metric.value * factor,
        low=None if metric.low is None else metric.low * factor,
        high=None if metric.high is None else metric.high * factor,
        n=metric.n,
        path=stored.path,
        body_digest=stored.digest,
        prunebench=record.code.prunebench,
        source_digest=record.code.source_digest,
        packages=tuple(sorted(record.environment.packages.items())),
        machine=machine_of(record),
    )


__all__ = [
    "COST_TOLERANCE",
    "QUALITY_TOLERANCE",
    "Absence",
    "By",
    "Point",
    "Segment",
    "Series",
    "history_of",
    "read_history",
]
