"""A metric over time: one series per cell, split where values stop being comparable, with marked changes."""

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
from suite.results.records.comparability import differences, machine_conditions, machine_of
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
"""(name, value) of every condition that comparable values must share."""

QUALITY_TOLERANCE = 0.01
"""Smallest relative change of a perplexity, an accuracy... that is marked."""
COST_TOLERANCE = 0.1
"""Smallest relative change of a time, a rate, an energy or a memory peak that is marked."""
_OF_THE_MACHINE = (*PRUNE_COSTS, *SPEEDS)


@dataclass(frozen=True)
class Point:
    """One value of a series.

    Attributes:
        created: time of the measurement, in UTC.
        commit: commit of the code, eight digits; None if the code was installed from a wheel.
        clean: whether the working tree was clean; None without a working tree.
        value: the value in the unit of the series.
        low: lower end of the 95 % interval over items, not over runs; None without an interval.
        high: upper end of the interval; None likewise.
        n: number of items behind the value.
        path: file of the record.
        body_digest: digest stored in that file.
        prunebench: version of prunebench that made the record.
        source_digest: digest of the sources that affect the numbers.
        packages: (name, version) of the other packages that may affect the numbers.
        machine: description of device, processor, cores and threads.
        runs: number of records of this commit, of which this point is the median; 1 in a series by date.
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
        """The commit, followed by `+` if the tree was not clean; without one, version and source digest."""
        if self.commit is None:
            return f"{self.prunebench}/{self.source_digest[:8]}"
        return self.commit if self.clean else f"{self.commit}+"


@dataclass(frozen=True)
class Absence:
    """A record without a value for the metric, for the reason in `status`."""

    created: datetime
    path: Path
    status: str


@dataclass(frozen=True)
class Segment:
    """Points that are comparable with each other. Segments may overlap in time, e.g. for two machines.

    Attributes:
        points: the points, in order of time.
        reason: how the conditions differ from the previous segment; empty for the first segment.
        findings: changes and outliers among the points, by index.
    """

    points: tuple[Point, ...]
    reason: str
    findings: Findings


@dataclass(frozen=True)
class Series:
    """One metric of one cell.

    Attributes:
        cell: the cell that was measured repeatedly.
        digest: digest of the cell.
        label: label of the cell, followed by the start of the digest if several cells share the label.
        metric: name of the metric.
        protocol: protocol of the metric; empty for costs of the machine.
        unit: empty if values are shown as recorded, otherwise a description of the unit.
        direction: whether higher or lower values are better.
        tolerance: relative change up to which nothing is marked.
        segments: the segments, in order of their first points.
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
        """Whether the change is an improvement; None if the metric has no direction."""
        if self.direction == "none":
            return None
        return (after > before) == (self.direction == "higher")


def read_history(paths: Sequence[Path]) -> Contents:
    """Reads all finished records below `paths`, in order of time; copies of a file count once.

    Args:
        paths: folders, which are searched recursively, so that one folder may contain results trees of many
            dates, or files of records.

    Raises:
        InputError: a folder or file does not exist, or there is no readable finished record.
    """
    # Failed records have no numbers.
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
    """Returns the series of a metric, one per cell and protocol.

    Args:
        records: finished records, in order of time.
        metric: name of the metric in the records.
        protocol: the only protocol to include; None = all protocols that have the metric.
        by: `date`: one point per record; `commit`: one point per commit, for its record with the median
            value. Records of a tree that was not clean each keep their own point.
        tolerance: relative change up to which nothing is marked; None = `COST_TOLERANCE` for metrics that
            depend on the machine, otherwise `QUALITY_TOLERANCE`.

    Raises:
        InputError: no record has the metric, or none has it with that protocol.
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
    """Maps each cell digest to a unique label."""
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
    # A series has one unit: if some records lack a reference speed, all values are shown as recorded.
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
    """Returns the conditions of a value, with the batch of the reference speed if that has `scaled` it."""
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
        found |= machine_conditions(record)
        if scaled and record.reference_speed is not None:
            found["batch of the machine's reference speed"] = (
                f"{record.reference_speed.batch_size} x {record.reference_speed.seqlen} tokens"
            )
    return tuple(found.items())


def _items(record: Record) -> Iterator[tuple[str, str, str, str]]:
    """Yields protocol, kind, digest and extent of the items behind the metrics of each protocol."""
    for window in record.windows:
        extent = f"{len(window.nll)} windows of {window.seqlen}"
        yield window.protocol, "corpus", window.corpus_digest, extent
    for task in record.tasks:
        yield task.protocol, "questions", task.items_digest, f"{task.n} questions, version {task.version}"
    if (answers := record.answers) is not None:
        # A different batch size alone changes answers.
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
    """Yields one point per commit, in order of first appearance: the run with the (lower) median value."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        # Trees with uncommitted changes may all differ, even if they have the same commit.
        key = f"{point.version} {point.body_digest}" if point.commit and not point.clean else point.version
        groups.setdefault(key, []).append(point)
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
