"""Verifies records as far as possible without running anything.

The checks find damage and contradictions: changed bytes, numbers that do not follow from the stored items,
and records that contradict each other. They cannot detect made-up items with consistent numbers; that
requires running the cell again (`suite.running.rerun`). docs/trust.md documents what each of the two proves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from suite.cell import DENSE
from suite.results.records.index import RecordShortener, StoredRecord, read_whole, record_files
from suite.results.records.items import ItemRow
from suite.results.records.record import Record
from suite.results.statistics.model_metrics import SIZES
from suite.results.statistics.task_items import FLIPS
from suite.results.verification.arithmetic import (
    check_answers,
    check_divergence,
    check_metrics,
    check_perplexity,
    check_production,
)
from suite.results.verification.cell_match import check_cell
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import CHECKS, CheckedRecord, Finding, Level, Verification, one_line
from suite.results.verification.item_rows import check_items
from suite.results.verification.pruning import check_cost, check_size, check_sparsity
from suite.results.verification.record_file import (
    PresentCode,
    ReadRecord,
    check_bytes,
    check_code,
    check_created,
    check_name,
    check_present_code,
)
from suite.results.verification.side_file import read_side_file
from suite.results.verification.task_scores import check_flips, check_tasks
from suite.results.verification.tree_checks import check_across, check_leftovers
from suite.storage.processes import in_batches

_Check = tuple[str, Callable[[Subject], bool], Callable[[Subject], Iterator[Finding]]]

_CHECKS: tuple[_Check, ...] = (
    ("name", lambda s: True, check_name),
    ("created", lambda s: True, check_created),
    ("cell", lambda s: True, check_cell),
    ("metrics", lambda s: bool(s.record.metrics), check_metrics),
    ("items", lambda s: s.items is not None, check_items),
    ("perplexity", lambda s: bool(s.record.windows), check_perplexity),
    ("divergence", lambda s: bool(s.record.divergences), check_divergence),
    ("tasks", lambda s: bool(s.record.tasks), check_tasks),
    ("production", lambda s: any(task.right_answers for task in s.record.tasks), check_production),
    ("flips", lambda s: _has(s, *(name for name, _ in FLIPS)), check_flips),
    ("answers", lambda s: s.record.answers is not None, check_answers),
    ("sparsity", lambda s: bool(s.record.modules) or _has(s, "sparsity"), check_sparsity),
    ("size", lambda s: _has(s, *SIZES), check_size),
    ("cost", lambda s: s.record.status == "complete", check_cost),
)
"""Name of each check, whether it applies to a record, and the check itself."""


def verify(paths: Iterable[Path], *, present: PresentCode | None = None) -> Verification:
    """Verifies single records and whole trees of records.

    Args:
        paths: files of records, and folders, which are searched recursively.
        present: returns the code that would run a cell now, to find stale records; None = do not check this.

    Returns:
        The findings; without any record if there are none below `paths`.
    """
    files: dict[Path, Path] = {}
    folders: dict[Path, Path] = {}
    for path in paths:
        for file in record_files([path]):
            files.setdefault(file.resolve(), file)
            if path.is_dir():
                folders.setdefault(file.parent.resolve(), file.parent)
    records = verify_files(list(files.values()))
    if present is not None:
        records = [_with_present_code(record, present) for record in records]
    found_across = (*check_across(records), *check_leftovers(folders.values(), records))
    return Verification(tuple(records), tuple(found_across))


def verify_files(files: Sequence[Path], *, workers: int | None = None) -> list[CheckedRecord]:
    """Verifies each file of a record with its side file, and against the dense records in its folder.

    Args:
        files: the files of records.
        workers: number of processes that share the work (`suite.storage.processes.in_batches`).

    Returns:
        The findings, in the order of the files, with records shortened as in an index.
    """
    return in_batches(_verify_batch, files, workers)


def verify_content(
    read: ReadRecord, side_file: bytes | None, *, dense: Sequence[Record] = ()
) -> CheckedRecord:
    """Verifies a record that was already read.

    Args:
        read: the result of `check_bytes`.
        side_file: content of the side file; None if it does not exist.
        dense: the records of dense models in the same folder.
    """
    path, record = read.path, read.record
    if record is None:
        return CheckedRecord(path, None, ("file",), read.findings)
    bare = Subject(path, record, dense=tuple(dense), schema_version=read.schema_version)
    items, of_side_file = read_side_file(bare, side_file)
    subject = replace(bare, items=items)
    found = [*read.findings, *of_side_file, *check_code(subject)]
    made = {"file", "code", *(["side-file"] if record.side_file or of_side_file else [])}
    for name, applies, check in _CHECKS:
        if applies(subject):
            made.add(name)
            found.extend(_made(name, check, subject))
    checks = tuple(name for name in CHECKS if name in made)
    stored = StoredRecord(path, record, read.digest)
    return CheckedRecord(path, stored, checks, tuple(found), read.schema_version)


def _verify_batch(files: Sequence[Path]) -> list[CheckedRecord]:
    slim, dense = RecordShortener(), cache(_dense_in)
    return [_without_bulk(_verify_file(file, dense), slim) for file in files]


def _verify_file(path: Path, dense_in: Callable[[Path], Sequence[Record]]) -> CheckedRecord:
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = Finding(path, "file", "problem", f"cannot be read: {error.strerror or error}")
        return CheckedRecord(path, None, ("file",), (problem,))
    read = check_bytes(path, data)
    return verify_content(read, _side_file_of(read), dense=dense_in(path.parent))


def _without_bulk(checked: CheckedRecord, slim: RecordShortener) -> CheckedRecord:
    if checked.stored is None:
        return checked
    return replace(checked, stored=replace(checked.stored, record=slim(checked.stored.record)))


def _with_present_code(checked: CheckedRecord, present: PresentCode) -> CheckedRecord:
    if checked.record is None:
        return checked
    found = check_present_code(Subject(checked.path, checked.record), present)
    return replace(checked, findings=(*checked.findings, *found))


def _made(name: str, check: Callable[[Subject], Iterator[Finding]], subject: Subject) -> Iterator[Finding]:
    """Runs a check; if it raises because of the record's values, that is reported as a problem.

    Records come from untrusted sources and may contain any numbers; one record must not stop the verification
    of the others.
    """
    try:
        yield from check(subject)
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        yield subject.problem(name, f"holds values that cannot be worked with ({what})")


def _dense_in(folder: Path) -> list[Record]:
    """Reads the finished records of dense models in a folder; unreadable ones are reported on their own."""
    found = read_whole(sorted(folder.glob(f"{DENSE}--{DENSE}--*.json")))
    return [stored.record for stored in found.records if stored.record.status == "complete"]


def _side_file_of(read: ReadRecord) -> bytes | None:
    if read.record is None or read.record.side_file is None:
        return None
    try:
        return read.path.with_name(read.record.side_file.name).read_bytes()
    except OSError:
        return None


def _has(subject: Subject, *names: str) -> bool:
    return any(metric.name in names for metric in subject.record.metrics)


__all__ = [
    "CHECKS",
    "CheckedRecord",
    "Finding",
    "ItemRow",
    "Level",
    "PresentCode",
    "ReadRecord",
    "Verification",
    "check_bytes",
    "one_line",
    "verify",
    "verify_content",
    "verify_files",
]
