"""What holds across the records of a tree, and what lies about in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from suite.results.records.index import RECORD_SUFFIX, StoredRecord
from suite.results.records.items import WindowLosses
from suite.results.records.leftovers import PREFIX
from suite.results.records.record import Record
from suite.results.records.store import SAMPLES_SUFFIX
from suite.results.verification.findings import CheckedRecord, Finding, Level, one_line
from suite.results.verification.task_scores import one_machine

_SAME_LOSS = 1e-6
"""Relative, of a window's loss on the same machine with the same code."""


def check_across(records: Sequence[CheckedRecord]) -> Iterator[Finding]:
    """What holds of several records together."""
    stored = [checked.stored for checked in records if checked.stored is not None]
    complete = [entry for entry in stored if entry.record.status == "complete"]
    yield from _twice(stored)
    yield from _weights(complete)
    yield from _texts(complete)
    yield from _lengths(complete)


def check_leftovers(folders: Iterable[Path], records: Sequence[CheckedRecord]) -> Iterator[Finding]:
    """Files beside records that no record accounts for.

    Args:
        folders: those that hold records.
        records: all records in them.
    """
    known = {record.path.absolute() for record in records}
    named = {
        entry.path.absolute().with_name(entry.record.side_file.name)
        for entry in records
        if entry.record is not None and entry.record.side_file is not None
    }
    # An unreadable record may still name its side file, and someone may want to mend it.
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


def _twice(stored: Sequence[StoredRecord]) -> Iterator[Finding]:
    for same in _grouped(stored, lambda entry: (entry.record.cell.digest, entry.record.status)):
        first = same[0]
        for other in same[1:]:
            message = f"is of the same cell as {first.path}"
            if other.tree == first.tree:
                yield _finding(other, "twice", "problem", f"{message}, in one tree")
            elif contradiction := _contradiction(first.record, other.record):
                yield _finding(other, "twice", "problem", f"{message} and contradicts it: {contradiction}")
            else:
                yield _finding(other, "twice", "remark", message)


def _contradiction(one: Record, other: Record) -> str | None:
    """How two records of one cell differ though one machine made them with one code; None if in nothing."""
    if (
        not one_machine(one.environment, other.environment)
        or one.code.source_digest != other.code.source_digest
    ):
        return None
    if any("memory ran out" in warning for record in (one, other) for warning in record.warnings):
        return None  # other batches, other roundings
    inputs = [
        (r.model and r.model.weight_digest, r.calibration and r.calibration.digest) for r in (one, other)
    ]
    if inputs[0] != inputs[1]:
        return None  # a model or text that was changed: `weights` and a rerun say so
    if one.mask_digest != other.mask_digest:
        return "the masks differ, on one machine with one code"
    theirs = {losses.protocol: losses for losses in other.windows}
    for losses in one.windows:
        found = theirs.get(losses.protocol)
        if found is None or found.corpus_digest != losses.corpus_digest:
            continue
        for a, b in zip(losses.nll, found.nll, strict=False):
            if (a is None) != (b is None) or (a is not None and b is not None and _far(a, b)):
                return f"the losses on {losses.protocol} differ, on one machine with one code"
    return None


def _far(a: float, b: float) -> bool:
    return abs(a - b) > _SAME_LOSS * max(abs(a), abs(b))


def _weights(stored: Sequence[StoredRecord]) -> Iterator[Finding]:
    identified = [entry for entry in stored if entry.record.model is not None]

    def key(entry: StoredRecord) -> Hashable:
        model = entry.record.model
        assert model is not None
        # A model without a revision is what its folder held that day: that may differ between trees.
        return (model.name, model.revision, model.dtype, None if model.revision else entry.tree)

    for same in _grouped(identified, key):
        yield from _differing(
            same,
            "weights",
            lambda record: record.model.weight_digest if record.model else "",
            "has dense weights",
        )


def _texts(stored: Sequence[StoredRecord]) -> Iterator[Finding]:
    protocols = {(losses.protocol, losses.limit) for entry in stored for losses in entry.record.windows}
    for protocol, limit in sorted(protocols, key=str):

        def digest(record: Record, protocol: str = protocol, limit: int | None = limit) -> str | None:
            for losses in record.windows:
                if (losses.protocol, losses.limit) == (protocol, limit):
                    return losses.corpus_digest
            return None

        measured = [entry for entry in stored if digest(entry.record) is not None]
        for same in _grouped(measured, lambda entry: (entry.record.cell.model, entry.tree)):
            yield from _differing(same, "texts", digest, f"was measured on tokens of {protocol}")


def _lengths(stored: Sequence[StoredRecord]) -> Iterator[Finding]:
    """The digest of tokens is of so many windows: who has fewer losses under it left some out."""
    first: dict[str, tuple[StoredRecord, WindowLosses]] = {}
    for entry in stored:
        for losses in entry.record.windows:
            one, known = first.setdefault(losses.corpus_digest, (entry, losses))
            if (len(known.nll), known.seqlen) != (len(losses.nll), losses.seqlen):
                yield _finding(
                    entry,
                    "texts",
                    "problem",
                    f"has {len(losses.nll)} windows of {losses.seqlen} tokens of {losses.protocol}, and "
                    f"{one.path} has {len(known.nll)} of {known.seqlen} with the same digest",
                )


def _differing(
    same: Sequence[StoredRecord], check: str, digest: Callable[[Record], str | None], what: str
) -> Iterator[Finding]:
    first = same[0]
    for other in same[1:]:
        one, found = digest(first.record), digest(other.record)
        if one != found:
            yield _finding(
                other, check, "problem", f"{what} {(found or '')[:12]}, and {first.path} {(one or '')[:12]}"
            )


def _finding(entry: StoredRecord, check: str, level: Level, message: str) -> Finding:
    return Finding(entry.path, check, level, one_line(message))


def _grouped(
    stored: Iterable[StoredRecord], key: Callable[[StoredRecord], Hashable]
) -> list[list[StoredRecord]]:
    groups: dict[Hashable, list[StoredRecord]] = {}
    for entry in stored:
        groups.setdefault(key(entry), []).append(entry)
    return [group for group in groups.values() if len(group) > 1]


__all__ = ["check_across", "check_leftovers"]
