"""All finished records below some folders, whenever they were made: what a history is drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from methods.errors import InputError
from suite.cell import Cell
from suite.results.records.reading import RecordError, load_record
from suite.results.records.record import (
    CalibrationIdentity,
    CodeVersion,
    Environment,
    MachineFloor,
    Metric,
    ModelIdentity,
    Record,
)
from suite.results.records.store import FAILED_SUFFIX, RECORD_NAMES, UnreadableRecord

MLFLOW_ARTIFACTS = "mlflow-artifacts"
"""The folder of a results tree where `--track mlflow` copies its records to."""


@dataclass(frozen=True)
class MeasuredItems:
    """What identifies the items behind the metrics of one protocol.

    Attributes:
        protocol: of the metrics.
        kind: `corpus`, `questions` or `prompts`.
        digest: of the items.
        extent: how many there are, and what else sets them apart.
    """

    protocol: str
    kind: str
    digest: str
    extent: str


@dataclass(frozen=True)
class DatedRecord:
    """What a history needs of a finished record; the bulk (modules, losses, answers) is left behind.

    Attributes:
        path: its file.
        created: when it was made, UTC.
        digest: of its cell, equal where the same was asked.
        body_digest: of the record.
        items: a row a protocol that has any.
    """

    path: Path
    created: datetime
    cell: Cell
    digest: str
    body_digest: str
    code: CodeVersion
    environment: Environment
    placement: str
    model: ModelIdentity | None
    calibration: CalibrationIdentity | None
    floor: MachineFloor | None
    metrics: tuple[Metric, ...]
    items: tuple[MeasuredItems, ...]


@dataclass(frozen=True)
class Archive:
    """What several results trees hold.

    Attributes:
        records: finished ones, in order of time; copies of a file count once.
        unreadable: what should be a record and is not.
    """

    records: tuple[DatedRecord, ...]
    unreadable: tuple[UnreadableRecord, ...]


def read_archive(paths: Sequence[Path]) -> Archive:
    """Reads every record below `paths`, each file once.

    Args:
        paths: folders, searched at any depth, so that results trees of many dates may stand side by side in
            one; a record's own file will do too.

    Raises:
        InputError: there is no such folder or file, or no finished record that can be read.
    """
    found: dict[str, DatedRecord] = {}
    unreadable: list[UnreadableRecord] = []
    for path in record_files(paths):
        if path.name.endswith(FAILED_SUFFIX):  # has no numbers
            continue
        try:
            record = load_record(path)
            if record.status == "complete" and record.body_digest not in found:
                found[record.body_digest] = dated_record(path, record)
        except FileNotFoundError:  # replaced by a running suite since the folder was listed
            continue
        except RecordError as error:
            unreadable.append(UnreadableRecord(path, error.reason))
    if not found:
        places = ", ".join(map(str, paths))
        broken = f" that can be read ({len(unreadable)} cannot)" if unreadable else ""
        raise InputError(f"{places}: no finished records{broken}; prunebench run writes them")
    records = sorted(found.values(), key=lambda record: (record.created, str(record.path)))
    return Archive(tuple(records), tuple(unreadable))


def record_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files of all records below `paths`, failed ones too, each once and in the order of names.

    Args:
        paths: folders, searched at any depth, which may lie in one another; a record's own file will do too.

    Raises:
        InputError: there is no such folder or file.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such folder of records")
        root = path.resolve()
        for file in [path] if path.is_file() else sorted(path.rglob(RECORD_NAMES)):
            below = file.relative_to(path)
            # A tracker's copies are no records of their own.
            place = file.resolve() if file.is_symlink() else root / below
            if MLFLOW_ARTIFACTS not in below.parts and place not in seen:
                seen.add(place)
                yield file


def dated_record(path: Path, record: Record) -> DatedRecord:
    """What a history needs of a record.

    Raises:
        RecordError: its `created` is no date.
    """
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        raise RecordError(str(path), f"created is no date: {record.created!r}") from None
    created = created.replace(tzinfo=UTC) if created.tzinfo is None else created.astimezone(UTC)
    return DatedRecord(
        path=path,
        created=created,
        cell=record.cell,
        digest=record.cell.digest,
        body_digest=record.body_digest,
        code=record.code,
        environment=record.environment,
        placement=record.placement,
        model=record.model,
        calibration=record.calibration,
        floor=record.floor,
        metrics=record.metrics,
        items=tuple(_items(record)),
    )


def _items(record: Record) -> Iterator[MeasuredItems]:
    for window in record.windows:
        extent = f"{len(window.nll)} windows of {window.seqlen}"
        yield MeasuredItems(window.protocol, "corpus", window.corpus_digest, extent)
    for task in record.tasks:
        extent = f"{task.n} questions, version {task.version}"
        yield MeasuredItems(task.protocol, "questions", task.items_digest, extent)
    if record.answers is not None:
        answers = record.answers
        # Another batch size alone parts answers.
        yield MeasuredItems(
            answers.protocol, "prompts", answers.prompts_digest, f"batches of {answers.batch_size}"
        )


__all__ = [
    "MLFLOW_ARTIFACTS",
    "Archive",
    "DatedRecord",
    "MeasuredItems",
    "dated_record",
    "read_archive",
    "record_files",
]
