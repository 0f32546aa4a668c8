"""Checks across the records of a tree, and for leftover files in it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from suite.results.records.index import RECORD_SUFFIX
from suite.results.records.record import Record
from suite.results.records.store import SAMPLES_SUFFIX
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import CheckedRecord, Finding
from suite.results.verification.rerun_comparison import losses_that_differ, same_machine_and_code
from suite.storage.leftovers import PREFIX


def check_across(records: Sequence[CheckedRecord]) -> Iterator[Finding]:
    """Checks the consistency of several records."""
    subjects = [Subject(r.stored.path, r.stored.record) for r in records if r.stored is not None]
    yield from _twice(subjects)
    yield from _inputs([subject for subject in subjects if subject.record.status == "complete"])


def check_leftovers(folders: Iterable[Path], records: Sequence[CheckedRecord]) -> Iterator[Finding]:
    """Finds files beside records that belong to no record.

    Args:
        folders: the folders that contain records.
        records: all records in these folders.
    """
    known = {record.path.absolute() for record in records}
    named = {
        entry.path.absolute().with_name(entry.record.side_file.name)
        for entry in records
        if entry.record is not None and entry.record.side_file is not None
    }
    # An unreadable record may still name its side file, and someone may want to repair it.
    damaged = [r.path.absolute() for r in records if r.record is None]
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.absolute() in known | named or path.is_dir():
                continue
            if path.name.startswith(PREFIX):
                yield Finding(path, "leftover", "remark", "is what a killed writer left, or one at work")
            elif path.name.endswith(SAMPLES_SUFFIX):
                stems = (
                    p.name.removesuffix(RECORD_SUFFIX) for p in damaged if p.parent == path.absolute().parent
                )
                if not any(path.name.startswith(f"{stem}.") for stem in stems):
                    yield Finding(path, "leftover", "remark", "is a side file that no record names")
            else:
                yield Finding(path, "leftover", "remark", "is no record and no side file")


def _twice(subjects: Sequence[Subject]) -> Iterator[Finding]:
    cells: dict[Hashable, Subject] = {}
    for other in subjects:
        first = cells.setdefault((other.record.cell.digest, other.record.status), other)
        if first is other:
            continue
        message = f"is of the same cell as {first.path}"
        if _tree(other) == _tree(first):
            yield other.problem("twice", f"{message}, in one tree")
        elif contradiction := _contradiction(first.record, other.record):
            yield other.problem("twice", f"{message} and contradicts it: {contradiction}")
        else:
            yield other.remark("twice", message)


def _contradiction(one: Record, other: Record) -> str | None:
    """Describes how two records of one cell differ although the same machine and code made them, or None."""
    if not same_machine_and_code(one, other):
        return None
    inputs = [
        (r.model and r.model.weight_digest, r.calibration and r.calibration.digest) for r in (one, other)
    ]
    if inputs[0] != inputs[1]:
        return None  # the model or text changed: reported by the check `weights`, or by a rerun
    differing = "the masks differ" if one.mask_digest != other.mask_digest else None
    differing = differing or next(losses_that_differ(one, other), None)
    return differing and f"{differing}, on one machine with one code"


def _inputs(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Checks that records naming the same model or text have the same weights or tokens."""
    first: dict[Hashable, tuple[Subject, str]] = {}
    shapes: dict[str, tuple[Subject, tuple[int, int]]] = {}
    for subject in subjects:
        record = subject.record
        claims: list[tuple[str, Hashable, str, str]] = []
        if (model := record.model) is not None:
            # A model without a revision is a local folder, whose content may differ between trees.
            place = None if model.revision else _tree(subject)
            named = (model.name, model.revision, model.dtype, place)
            claims.append(("weights", named, model.weight_digest, "has dense weights"))
        for losses in record.windows:
            asked = (record.cell.model, _tree(subject), losses.protocol, losses.limit)
            what = f"was measured on tokens of {losses.protocol}"
            claims.append(("texts", asked, losses.corpus_digest, what))
        for check, key, digest, what in claims:
            one, known = first.setdefault((check, key), (subject, digest))
            if known != digest:
                yield subject.problem(check, f"{what} {digest[:12]}, and {one.path} {known[:12]}")
        for losses in record.windows:
            # A digest of tokens belongs to a fixed number of windows; a record with fewer left some out.
            shape = len(losses.nll), losses.seqlen
            one, other = shapes.setdefault(losses.corpus_digest, (subject, shape))
            if other != shape:
                yield subject.problem(
                    "texts",
                    f"has {shape[0]} windows of {shape[1]} tokens of {losses.protocol}, and "
                    f"{one.path} has {other[0]} of {other[1]} with the same digest",
                )


def _tree(subject: Subject) -> Path:
    """Returns the results tree: the folder that contains the folders of the models."""
    return subject.path.absolute().parent.parent


__all__ = ["check_across", "check_leftovers"]
