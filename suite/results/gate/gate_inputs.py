"""Reads the two sides of a comparison from results trees, and pairs their cells."""

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
        record: the newest record of the cell: a failed rerun replaces an older finished record.
        path: the file of the record; None if it was never stored, and for a failed rerun.
        failure: the record of a failed attempt beside the finished record, if it is older.
    """

    record: Record
    path: Path | None = None
    failure: Record | None = None

    def item_values(self, protocol: str, metric: str) -> tuple[float | None, ...] | None:
        """Returns the values of one metric in the side file, in the order of items; None if it has none.

        Raises:
            InputError: the side file cannot be read, or does not belong to the record.
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
        except (KeyError, ValueError, TypeError) as error:  # not a parquet file, or with other columns
            reason = " ".join(str(error).split())
            raise InputError(f"{self.path}: its side file cannot be read: {reason}") from error


@dataclass(frozen=True)
class Side:
    """The baseline or the candidate.

    Attributes:
        name: the path that the user gave.
        entries: the cells.
    """

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Pairing:
    """The cells of two sides, matched.

    Attributes:
        pairs: baseline and candidate of each common cell.
        missing: cells that only the baseline has, each with how the candidate's most similar cell differs.
        new: cells that only the candidate has.
    """

    pairs: tuple[tuple[Entry, Entry], ...]
    missing: tuple[tuple[Entry, str], ...]
    new: tuple[Entry, ...]


def read_side(path: Path, role: str) -> Side:
    """Reads a complete results tree, or the file of one record.

    Args:
        path: the folder or the file.
        role: name of the side in errors: `baseline`, `candidate`.

    Raises:
        InputError: the path does not exist, contains no record, or contains a damaged one (cut short,
            changed, without its side file). The message is one line.
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
    """Pairs the equal cells of two sides.

    Args:
        baseline: the side to compare with.
        candidate: the side to judge.
        across: dotted keys in which paired cells may differ: `calibration.seed`, `pattern`.

    Raises:
        InputError: the sides have no cell in common, a side has a cell twice, or `across` contains an
            unknown key. The message is one line.
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
    """Describes how the most similar cell of the other side differs."""
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
