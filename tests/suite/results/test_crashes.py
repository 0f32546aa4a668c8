"""Ten thousand cuts in the store's write path, and stores that are wrong, to see that a cut can show it."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from suite.cell import Cell
from suite.results.records.reading import record_bytes
from suite.results.records.record import Record, SideFile
from suite.results.records.state import check_side_file
from suite.results.records.store import SAMPLES_SUFFIX, ResultStore, _parquet
from suite.storage.files import FileLayer, replace_file
from suite.storage.leftovers import ABANDONED_AFTER_S, PREFIX
from tests.suite.results.crashes import Disk, Layer, age
from tests.suite.results.examples import make_cell, make_failed, make_record
from tests.suite.results.faults import Killed
from tests.suite.results.histories import DamageError, Items, simulate

CUTS = 10_000
PARTS = 4
STEPS = (
    *("start", "make a folder", "create", "write", "inside a write", "sync", "rename", "sync a folder"),
    *("remove", "at rest"),
)
ITEMS = cast(pd.DataFrame, Items("a test"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory where that can be had: nothing here needs a real disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="prunebench-", dir=memory if os.access(memory, os.W_OK) else tmp_path
    ) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_cut_loses_a_finished_record_or_leaves_one_unreadable(folder: Path, part: int) -> None:
    seen = simulate(CUTS // PARTS, folder, seed=part * 1_000_000)
    assert seen.cuts.total() >= CUTS // PARTS
    print(f"{seen.cuts.total()} cuts: {dict(seen.cuts)}; of records under way: {dict(seen.found)}")
    # Else the histories were too tame to show anything.
    for cut in ("kill", "power"):
        for step in STEPS:
            assert seen.cuts[f"{cut}, {step}"], f"no {cut} before {step}"
        for which in ("none", "old", "new"):
            assert seen.found[f"{cut}, {which}"] > 20
    assert seen.reboots > 20 and seen.killed > 20


class RecordBeforeItems(ResultStore):
    """Puts the record in place, and then its side file."""

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        if items is None or record.status != "complete":
            return super().write(record, items)
        path = self.path_of(record.cell)
        self._make_folders(path.parent)
        data = _parquet(items)
        name = f"{path.stem}.{hashlib.sha256(record.created.encode()).hexdigest()[:8]}{SAMPLES_SUFFIX}"
        side_file = SideFile(name=name, sha256=hashlib.sha256(data).hexdigest(), rows=1)
        sealed = record.model_copy(update={"side_file": side_file}).sealed()
        replace_file(path, record_bytes(sealed), self._files)
        replace_file(path.with_name(name), data, self._files)
        self._files.sync_folder(path.parent)
        self._remove_failure(record.cell)
        return path


class OldItemsFirst(ResultStore):
    """Takes the old side file away before the new record is in place."""

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        path = self.path_of(record.cell) if record.status == "complete" else self.failed_path_of(record.cell)
        for side_file in path.parent.glob(f"{path.stem}.????????{SAMPLES_SUFFIX}"):
            self._files.remove(side_file)
        return super().write(record, items)


class OldRecordFirst(ResultStore):
    """Takes the old record away before the new one is in place."""

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        if record.status == "complete":
            self._files.remove(self.path_of(record.cell))
        return super().write(record, items)


class InPlace(ResultStore):
    """Writes a record without items under its own name, not under another one first."""

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        if items is not None or record.status != "complete":
            return super().write(record, items)
        path = self.path_of(record.cell)
        self._make_folders(path.parent)
        self._files.remove(path)
        with self._files.create(path) as file:
            self._files.write(file, record_bytes(record.sealed()))
            self._files.sync(file)
        self._files.sync_folder(path.parent)
        self._remove_failure(record.cell)
        return path


class FailureIsResult(ResultStore):
    """Lets a failure take the place of a finished record."""

    def write(self, record: Record, items: pd.DataFrame | None = None) -> Path:
        path = super().write(record, items)
        if record.status == "failed":
            self._files.remove(self.path_of(record.cell))
        return path


class SweepsWhatIsHalfWritten(ResultStore):
    """Sweeps whatever looks half-written, whoever is at it."""

    def sweep(self) -> list[Path]:
        removed = [*super().sweep(), *self.root.glob(f"*/{PREFIX}*")]
        for path in removed:
            self._files.remove(path)
        return removed


class SweepsFreshItems(ResultStore):
    """Sweeps side files without a record at once, though theirs may be about to be written."""

    def sweep(self) -> list[Path]:
        named = {s.record.side_file.name for s in self.records().records if s.record.side_file}
        removed = [path for path in self.root.glob(f"*/*{SAMPLES_SUFFIX}") if path.name not in named]
        for path in removed:
            self._files.remove(path)
        return removed


class NeverSweeps(ResultStore):
    """Leaves everything where it is."""

    def sweep(self) -> list[Path]:
        return []


class FoldersNotSynced(ResultStore):
    """Trusts that a folder which is there lasts."""

    def _make_folders(self, folder: Path) -> None:
        if not folder.is_dir():
            super()._make_folders(folder)


class FailureTakenAtOnce(ResultStore):
    """Removes a failure and its items without a wait between."""

    def _remove_failure(self, cell: Cell) -> None:
        path = self.failed_path_of(cell)
        self._files.remove(path)
        for side_file in path.parent.glob(f"{path.stem}.????????{SAMPLES_SUFFIX}"):
            self._files.remove(side_file)


def wrong(store: type[ResultStore]) -> dict[str, Any]:
    return {"make_store": lambda root, files: store(root, files=files)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"without": frozenset({"sync"})}, "unreadable|has digest"),
        ({"without": frozenset({"sync a folder"})}, "lost|side file"),
        (wrong(RecordBeforeItems), "side file .* cannot be read"),
        (wrong(OldItemsFirst), "side file .* cannot be read"),
        (wrong(OldRecordFirst), "lost: the finished record"),
        (wrong(InPlace), "lost: the finished record|unreadable"),
        (wrong(FailureIsResult), "lost: the finished record"),
        (wrong(SweepsWhatIsHalfWritten), "FileNotFoundError"),
        (wrong(SweepsFreshItems), "sweep took other|side file"),
        (wrong(NeverSweeps), "sweep took other"),
        (wrong(FoldersNotSynced), "lost"),
        (wrong(FailureTakenAtOnce), "side file .* cannot be read"),
    ],
    ids=lambda value: None if isinstance(value, str) else _name(value),
)
def test_a_store_that_is_wrong_is_found_out(folder: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(DamageError, match=what):
        simulate(5_000, folder, **changes)


def _name(changes: dict[str, Any]) -> str:
    if "without" in changes:
        return f"never {next(iter(changes['without']))}"
    return type(changes["make_store"](Path(), FileLayer())).__name__


def on(disk: Disk, *, dies_before: str = "", after: int = 0) -> ResultStore:
    """The tree on that disk; its process may be killed before an operation, after that many of its kind."""
    left = [after]

    def pause(step: str) -> None:
        if step == dies_before:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    return ResultStore(disk.base / "results", files=Layer(disk, pause, random.Random(0), frozenset()))


def found_after_power_cuts(disk: Disk, folder: Path) -> set[str]:
    """What the cell's record may say of its making after a power cut, in a hundred of them."""
    found = set()
    for seed in range(100):
        after = disk.after_cut(folder / str(seed), random.Random(seed), power=True)
        contents = ResultStore(after.base / "results").records()
        assert not contents.unreadable
        for stored in contents.records:
            assert check_side_file(stored.path, stored.record) is None
            if stored.failure is not None:
                failed = stored.path.with_name(f"{stored.path.stem}.failed.json")
                assert check_side_file(failed, stored.failure.record) is None
        found.add(", ".join(stored.record.created for stored in contents.records))
    return found


@pytest.mark.parametrize("n_syncs", [0, 1])
def test_a_record_lasts_in_a_folder_whose_maker_was_killed_before_it_lasted(
    folder: Path, n_syncs: int
) -> None:
    disk = Disk(folder / "disk")
    with pytest.raises(Killed):
        on(disk, dies_before="sync a folder", after=n_syncs).write(make_record(created="first"), ITEMS)
    on(disk).write(make_record(created="second"), ITEMS)
    assert found_after_power_cuts(disk, folder) == {"second"}


def test_a_failure_that_a_power_cut_brings_back_has_its_items(folder: Path) -> None:
    disk = Disk(folder / "disk")
    on(disk).write(make_failed(created="first"), ITEMS)
    on(disk).write(make_record(created="second"), ITEMS)
    assert found_after_power_cuts(disk, folder) == {"second"}


def test_sweep_takes_no_items_whose_record_a_power_cut_would_bring_back(folder: Path) -> None:
    disk = Disk(folder / "disk")
    cell = make_cell()
    on(disk).write(make_record(cell, created="first"), ITEMS)
    with pytest.raises(Killed):  # the record has its name, which is not on the disk yet
        on(disk, dies_before="sync a folder", after=3).write(make_record(cell, created="second"), ITEMS)
    assert on(disk).records().records[0].record.created == "second"
    for path in disk.base.rglob("*.parquet"):
        age(path, 2 * ABANDONED_AFTER_S)
    assert len(on(disk).sweep()) == 1
    found_after_power_cuts(disk, folder)
