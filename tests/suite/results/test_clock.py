"""A clock that is wrong, or is set back while the store is in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.results.records.reading import load_record
from suite.results.records.store import ResultStore
from suite.storage.files import FileLayer
from suite.storage.leftovers import ABANDONED_AFTER_S, PREFIX, temporary_name
from tests.suite.results.examples import CODE, make_cell, make_items, make_record

DAY = 24 * 3600.0
YEARS = 20 * 365 * DAY


def shift(path: Path, seconds: float) -> None:
    """Gives a file a time that far from now; in the future where positive."""
    then = time.time() + seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("created", ["1970-01-01T00:00:00+00:00", "2999-12-31T23:59:59+00:00"])
def test_a_record_made_at_another_time_than_now_is_a_record(tmp_path: Path, created: str) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_record(created=created), make_items())
    assert load_record(path).created == created
    assert store.status_of(make_cell(), CODE).kind == "complete"
    assert len(store.records().records) == 1


def test_the_record_written_last_stands_though_the_clock_was_set_back_in_between(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    first = store.write(make_record(created="2030-01-01T00:00:00+00:00"), make_items(2))
    for path in first.parent.iterdir():
        shift(path, YEARS)
    store.write(make_record(created="2020-01-01T00:00:00+00:00"), make_items(4))
    (stored,) = store.records().records
    assert stored.record.created.startswith("2020")
    items = store.items(stored)
    assert items is not None and len(items) == 4
    assert store.sweep() == [] and len(list(tmp_path.glob("*/*"))) == 2


@settings(max_examples=60)
@given(temporary=st.floats(-YEARS, YEARS), others=st.floats(0, YEARS), items=st.floats(-DAY + 60, YEARS))
def test_whatever_the_clock_says_sweep_leaves_a_living_writers_files(
    tmp_path_factory: pytest.TempPathFactory, temporary: float, others: float, items: float
) -> None:
    """Its own by the process, another host's and side files by their age, of which the future has none."""
    root = tmp_path_factory.mktemp("tree")
    swept: list[list[Path]] = []

    class SweptBetween(FileLayer):
        def rename(self, source: Path, target: Path) -> None:
            shift(source, temporary)
            foreign = source.with_name(f"{PREFIX}00000000-1-00000000")
            foreign.touch()
            shift(foreign, others)
            swept.append(ResultStore(root).sweep())
            super().rename(source, target)
            if target.suffix == ".parquet":
                shift(target, items)

    store = ResultStore(root, files=SweptBetween())
    store.write(make_record(), make_items())
    assert swept == [[], []]
    assert store.status_of(make_cell(), CODE).kind == "complete"


def test_a_clock_set_back_only_delays_the_sweep(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    folder = store.write(make_record(), make_items()).parent
    orphan = folder / "wanda--0.5--11111111.22222222.samples.parquet"
    dead = folder / temporary_name().replace(f"-{os.getpid()}-", f"-{2**30}-")
    for path in (orphan, dead):
        path.touch()
        shift(path, YEARS)
    assert store.sweep() == [dead], "that its process is gone does not depend on the clock"
    shift(orphan, -2 * ABANDONED_AFTER_S)
    assert store.sweep() == [orphan]
    assert store.status_of(make_cell(), CODE).kind == "complete"
