"""The two sides of a comparison: read from results trees, and paired cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import InputError, did_you_mean
from suite.results.records.index import StoredRecord
from suite.results.records.reading import RecordError, load_record
from suite.results.records.record import Record
from suite.results.records.state import check_side_file
from suite.results.records.store import ResultStore, read_items


@dataclass(frozen=True)
class Entry:
    """One cell of a side.

    Attributes:
        record: its newest outcome: a failed rerun that came after the finished record counts.
        path: the record's file; None where it was never stored.
        failure: a failed attempt on record beside the finished one, which is not known to be newer.
    """

    record: Record
    path: Path | None = None
    failure: Record | None = None

    def item_values(self, protocol: str, metric: str) -> tuple[float | None, ...] | None:
        """The values of one metric in the side file, in the order of items; None where it has none.

        Raises:
            InputError: the side file cannot be read, or is not the record's.
        """
        if self.path is None or self.record.side_file is None:
            return None
        try:
            frame = read_items(self.path, self.record)
            if frame is None:
                return None
            rows = frame[(frame["protocol"] == protocol) & (frame["metric"] == metric)].sort_values("item")
            return None if rows.empty else tuple(None if v != v else float(v) for v in rows["value"])
        except RecordError as error:
            raise InputError(str(error)) from error
        except (KeyError, ValueError, TypeError) as error:  # no parquet, or none of ours
            reason = " ".join(str(error).split())
            raise InputError(f"{self.path}: its side file cannot be read: {reason}") from error


@dataclass(frozen=True)
class Side:
    """The baseline or the candidate.

    Attributes:
        name: as the user named it.
        entries: its cells.
    """

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Pairing:
    """Which cells stand against which.

    Attributes:
        pairs: baseline and candidate of one cell.
        missing: cells that only the baseline has, with how the nearest of the candidate's differs.
        new: cells that only the candidate has.
    """

    pairs: tuple[tuple[Entry, Entry], ...]
    missing: tuple[tuple[Entry, str], ...]
    new: tuple[Entry, ...]


def read_side(path: Path, role: str) -> Side:
    """Reads a results tree, or the file of one record, whole.

    Args:
        path: the folder or the file.
        role: what to call it in errors: `baseline`, `candidate`.

    Raises:
        InputError: there is nothing there, no record in it, or one that cannot be trusted (cut, changed,
            without its side file): one line.
    """
    if path.is_dir():
        contents = ResultStore(path).records()
        if contents.unreadable:
            first = contents.unreadable[0]
            more = f" (and {len(contents.unreadable) - 1} more)" if len(contents.unreadable) > 1 else ""
            raise InputError(f"{role} {first.path}: {first.reason}{more}")
        entries = [_newest(stored) for stored in contents.records]
        if not entries:
            raise InputError(f"{role} {path}: {_why_empty(path)}")
    else:
        try:
            entries = [Entry(load_record(path), path)]
        except FileNotFoundError as error:
            raise InputError(f"{role} {path}: no such folder of records") from error
        except RecordError as error:
            raise InputError(f"{role} {error}") from error
    for entry in entries:
        if entry.path is not None and (problem := check_side_file(entry.path, entry.record)) is not None:
            raise InputError(f"{role} {entry.path}: {problem}")
    return Side(str(path), tuple(entries))


def pair_cells(baseline: Side, candidate: Side, across: Sequence[str] = ()) -> Pairing:
    """Pairs the cells of two sides that ask for the same.

    Args:
        baseline: what is compared with.
        candidate: what is judged.
        across: keys of cells in which the two may differ, dotted: `calibration.seed`, `pattern`.

    Raises:
        InputError: no cell is on both sides, one is twice on a side, or `across` names no key: one line.
    """
    _check_keys([*baseline.entries, *candidate.entries], across)
    ours, theirs = _keyed(baseline, "baseline", across), _keyed(candidate, "candidate", across)
    pairs = [(ours[key], theirs[key]) for key in ours if key in theirs]
    left, right = (
        {k: e for k, e in one.items() if k not in other} for one, other in ((ours, theirs), (theirs, ours))
    )
    if not pairs:
        first = next(iter(left.values()))
        raise InputError(
            f"baseline {baseline.name} and candidate {candidate.name} have no cell in common: "
            f"{first.record.cell.label}: {_nearest(first, right.values())}"
        )
    missing = tuple((entry, _nearest(entry, right.values())) for entry in left.values())
    return Pairing(tuple(pairs), missing, tuple(right.values()))


def _keyed(side: Side, role: str, across: Sequence[str]) -> dict[Any, Entry]:
    found: dict[Any, Entry] = {}
    for entry in side.entries:
        cell = entry.record.cell
        key: Any = cell.digest
        if across:
            key = tuple(sorted((k, repr(v)) for k, v in cell.by_key.items() if not _is_in(k, across)))
        if key in found:
            twice = " and ".join(str(e.path) for e in (found[key], entry))
            only = f" but for {', '.join(across)}" if found[key].record.cell != cell else ""
            raise InputError(f"{role} {side.name}: the cell {cell.label} is there twice{only}: {twice}")
        found[key] = entry
    return found


def _is_in(key: str, across: Sequence[str]) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in across)


def _check_keys(entries: Iterable[Entry], across: Sequence[str]) -> None:
    known = sorted({key for entry in entries for key in entry.record.cell.by_key})
    for name in across:
        if not any(_is_in(key, [name]) for key in known):
            raise InputError(f"--across {name}: cells have no such key{did_you_mean(name, known)}")


def _nearest(entry: Entry, others: Iterable[Entry]) -> str:
    """How the most similar cell of the other side differs."""
    ours = entry.record.cell.by_key
    differing = [
        {key: value for key, value in theirs.items() if ours.get(key) != value}
        for theirs in (dict.fromkeys(ours) | other.record.cell.by_key for other in others)
    ]
    if not differing:
        return "the candidate has no such cell"
    nearest = min(differing, key=len)
    key = next(iter(nearest), "")
    more = f" (and {len(nearest) - 1} more keys)" if len(nearest) > 1 else ""
    return f"the nearest of the candidate's differs in {key}: {ours.get(key)} and {nearest.get(key)}{more}"


def _newest(stored: StoredRecord) -> Entry:
    failure = None if stored.failure is None else stored.failure.record
    if failure is not None and failure.created >= stored.record.created:
        return Entry(failure)
    return Entry(stored.record, stored.path, failure)


def _why_empty(path: Path) -> str:
    trees = sorted({found.parent.parent for found in path.glob("*/*/*--*--*.json")})
    if trees:
        return f"holds no records itself, but {trees[0]} does: name one results tree"
    return "holds no records; prunebench run writes them"


__all__ = ["Entry", "Pairing", "Side", "pair_cells", "read_side"]
