"""`python -m benchmarks.same_numbers BEFORE AFTER`: checks that two results trees are equal bit for bit.

For a change that must not change any number: run one suite before and after it, with the same number of
threads on the same machine. For each cell, compares mask digests, module reports, items, answers and metrics,
but not times, rates, memory and energy. Exits with 1 if anything differs, or if one tree lacks a cell that
the other has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from methods.errors import InputError
from suite.results import Record, ResultStore
from suite.results.verification.metric_kinds import kinds_of

PARTS = ("mask_digest", "initial_mask_digest", "windows", "divergences", "answers", "modules")
"""Fields of a record's body that are compared as they are."""
MACHINE = ("cost", "speed")
"""Kinds of metrics that depend on the machine."""


@dataclass(frozen=True)
class Measured:
    """The results of one cell: its record, and its side file (None if it has none)."""

    record: Record
    items: pd.DataFrame | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the differences, or how much is equal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_numbers", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    asked = parser.parse_args(arguments)
    try:
        before, after = read(asked.before), read(asked.after)
    except InputError as error:
        parser.error(str(error))
    differences = list(compare(before, after))
    for difference in differences:
        print(difference)
    if not differences:
        masks = sum(cell.record.mask_digest is not None for cell in before.values())
        items = sum(0 if cell.items is None else len(cell.items) for cell in before.values())
        print(f"the same to the bit: {len(before)} cells, {masks} mask digests, {items:,} items")
    return 1 if differences else 0


def read(root: Path) -> dict[str, Measured]:
    """Returns the finished cells of a results tree by digest.

    Raises:
        InputError: the tree has no finished cell, or a record cannot be read.
    """
    store = ResultStore(root)
    contents = store.records()
    if contents.unreadable:
        raise InputError(f"{contents.unreadable[0].path}: {contents.unreadable[0].reason}")
    found = {
        stored.record.cell.digest: Measured(stored.record, store.items(stored))
        for stored in contents.records
        if stored.record.status == "complete"
    }
    if not found:
        raise InputError(f"{root}: holds no finished records")
    return found


def compare(before: dict[str, Measured], after: dict[str, Measured]) -> Iterator[str]:
    """Yields one line per difference."""
    for digest in sorted(before.keys() ^ after.keys()):
        where, cell = ("before", before[digest]) if digest in before else ("after", after[digest])
        yield f"{cell.record.cell.label}: finished only {where}"
    for digest in sorted(before.keys() & after.keys()):
        label = before[digest].record.cell.label
        for part in _different(before[digest], after[digest]):
            yield f"{label}: {part} differs"


def _different(one: Measured, other: Measured) -> Iterator[str]:
    ours, theirs = _numbers(one.record), _numbers(other.record)
    yield from (part for part in ours if ours[part] != theirs[part])
    if not _same_items(one.items, other.items):
        yield "the side file"


def _numbers(record: Record) -> dict[str, Any]:
    body, kinds = record.body(), kinds_of(record)
    return {
        "the model": body["model"] and body["model"]["weight_digest"],
        "the calibration": body["calibration"],
        **{part: body[part] for part in PARTS},
        # `docs_digest` covers names of functions in a definition; items have a digest of their own.
        "tasks": [
            {key: value for key, value in task.items() if key != "docs_digest"} for task in body["tasks"]
        ],
        "metrics": [
            dumped
            for metric, dumped in zip(record.metrics, body["metrics"], strict=True)
            if kinds.get((metric.name, metric.protocol)) not in MACHINE
        ],
    }


def _same_items(one: pd.DataFrame | None, other: pd.DataFrame | None) -> bool:
    """Whether both have the same rows in the same order; `equals` treats missing values as equal."""
    if one is None or other is None:
        return one is other
    return one.equals(other)


if __name__ == "__main__":
    sys.exit(main())
