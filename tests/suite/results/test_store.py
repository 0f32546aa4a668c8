from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from suite.cell import Cell
from suite.results.records.reading import RecordError
from suite.results.records.record import Record
from suite.results.records.store import ResultStore
from suite.storage.files import FileLayer, replace_text
from suite.storage.leftovers import ABANDONED_AFTER_S, PREFIX, temporary_name
from tests.suite.results.examples import CODE, OTHER_CODE, make_cell, make_failed, make_items, make_record
from tests.suite.results.faults import FaultyLayer, Killed

CELL = make_cell()


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def only_record(store: ResultStore) -> Record:
    contents = store.records()
    assert not contents.unreadable
    (stored,) = contents.records
    return stored.record


def test_a_written_record_and_its_items_are_found_again(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "new" / "results")
    path = store.write(make_record(), make_items())
    assert path == store.path_of(CELL) == tmp_path / "new" / "results" / "org__model" / f"{CELL.stem}.json"
    state = store.status_of(CELL, CODE)
    assert (state.kind, state.reason) == ("complete", "")
    (stored,) = store.records().records
    assert stored.record == state.record
    items = store.items(stored)
    assert items is not None
    pd.testing.assert_frame_equal(items, make_items())
    assert len(files(tmp_path)) == 2


def test_a_record_without_items_has_no_side_file(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(make_record())
    assert files(tmp_path) == [f"{CELL.stem}.json"]
    assert store.items(store.records().records[0]) is None


def test_an_empty_tree_holds_nothing(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "nowhere")
    assert store.status_of(CELL, CODE).kind == "missing"
    assert store.records().records == ()
    assert store.sweep() == []
    assert not (tmp_path / "nowhere").exists()


def test_a_record_of_other_code_is_stale_until_it_is_replaced(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(make_record(code=OTHER_CODE), make_items())
    state = store.status_of(CELL, CODE)
    assert state.kind == "stale"
    assert "bbbbbbbb" in state.reason and "aaaaaaaa" in state.reason
    newer_method = CODE.model_copy(update={"method_version": 2})
    store.write(make_record(), make_items(4))
    assert store.status_of(CELL, CODE).kind == "complete"
    assert len(files(tmp_path)) == 2, "the replaced record's side file goes"
    state = store.status_of(CELL, newer_method)
    assert (state.kind, state.reason) == ("stale", "made by version 1 of the method, now 2")


def test_code_is_looked_at_only_where_there_is_a_record(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    asked = []
    assert store.status_of(CELL, lambda: asked.append(1) or CODE).kind == "missing"  # type: ignore[func-returns-value]
    assert not asked
    store.write(make_record())
    assert store.status_of(CELL, lambda: asked.append(1) or CODE).kind == "complete"  # type: ignore[func-returns-value]
    assert asked


def test_a_failure_never_costs_a_finished_record(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(make_failed(), make_items())
    state = store.status_of(CELL, CODE)
    assert (state.kind, state.reason) == ("failed", "NonFiniteError in phase solve: layers.3.q: NaN")
    assert only_record(store).status == "failed"

    store.write(make_record(), make_items())
    assert store.status_of(CELL, CODE).kind == "complete"
    assert len(files(tmp_path)) == 2, "success takes the failure and its side file away"

    store.write(make_failed())
    state = store.status_of(CELL, CODE)
    assert state.kind == "complete" and "NonFiniteError" in state.reason
    (stored,) = store.records().records
    assert stored.record.status == "complete"
    assert stored.failure is not None and stored.failure.record.status == "failed"


def test_stale_numbers_do_not_hide_that_the_present_code_fails(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(make_record(code=OTHER_CODE))
    store.write(make_failed())
    assert store.status_of(CELL, CODE).kind == "failed"
    store.write(make_failed(code=OTHER_CODE))
    assert store.status_of(CELL, CODE).kind == "stale"


@pytest.mark.parametrize("damage", ["body", "cut", "side file", "no side file", "other cell", "failed"])
def test_what_cannot_be_trusted_is_broken(tmp_path: Path, damage: str) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_record(), make_items())
    side_file = next(path.parent.glob("*.parquet"))
    if damage == "body":
        path.write_bytes(path.read_bytes().replace(b"25.5", b"24.5"))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "side file":
        data = bytearray(side_file.read_bytes())
        data[len(data) // 2] ^= 1
        side_file.write_bytes(bytes(data))
    elif damage == "no side file":
        side_file.unlink()
    elif damage == "other cell":
        store.write(make_record(make_cell(dtype="bfloat16"))).replace(path)
    elif damage == "failed":
        store.write(make_failed()).replace(path)
    state = store.status_of(CELL, CODE)
    assert state.kind == "broken"
    assert str(path) in state.reason and "\n" not in state.reason
    store.write(make_record(), make_items())
    assert store.status_of(CELL, CODE).kind == "complete"


def test_unreadable_records_are_listed_beside_the_readable(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(make_record())
    other = store.write(make_record(make_cell(pattern="2:4")))
    other.write_bytes(b"")
    (tmp_path / "org__model" / "notes.json").write_text("not ours")
    contents = store.records()
    assert [stored.record.cell.pattern for stored in contents.records] == ["0.5"]
    assert [(entry.path, entry.reason) for entry in contents.unreadable] == [(other, "is empty")]


def test_items_that_were_changed_are_not_handed_out(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_record(), make_items())
    make_items(9).to_parquet(next(path.parent.glob("*.parquet")))
    with pytest.raises(RecordError, match="has digest"):
        store.items(store.records().records[0])


@pytest.mark.parametrize("model", ["..", ".", "../../x", "/abs/x", "./x"])
def test_no_models_name_leads_out_of_the_tree(tmp_path: Path, model: str) -> None:
    store = ResultStore(tmp_path / "results")
    path = store.write(make_record(make_cell(model=model)))
    assert path.resolve().parent.parent == tmp_path / "results"
    assert len(store.records().records) == 1


def steps_of(tmp_path: Path, before: Record | None, after: Record) -> list[str]:
    layer = FaultyLayer()
    root = tmp_path / "counted"
    if before is not None:
        ResultStore(root).write(before, make_items(2))
    ResultStore(root, files=layer).write(after, make_items(4))
    return layer.steps


CASES = {
    "a first record": (None, make_record(), {"missing", "complete"}),
    "a stale record replaced": (make_record(code=OTHER_CODE), make_record(), {"stale", "complete"}),
    "a failure overcome": (make_failed(), make_record(), {"failed", "complete"}),
    "a failure after a failure": (make_failed(), make_failed(), {"failed"}),
    "a failure beside a record": (make_record(), make_failed(), {"complete"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("full_disk", [False, True], ids=["killed", "full disk"])
def test_a_write_cut_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, case: str, full_disk: bool
) -> None:
    before, after, allowed = CASES[case]
    steps = steps_of(tmp_path, before, after)
    assert steps.count("rename") == 2
    for at, step in enumerate(steps):
        root = tmp_path / str(at)
        if before is not None:
            ResultStore(root).write(before, make_items(2))
        with pytest.raises(OSError if full_disk else Killed):
            ResultStore(root, files=FaultyLayer(at, full_disk=full_disk)).write(after, make_items(4))
        store = ResultStore(root)
        state = store.status_of(CELL, CODE)
        assert state.kind in allowed, f"killed at step {at}, {step}: {state}"
        contents = store.records()
        assert not contents.unreadable
        if before is not None:
            assert contents.records
        for stored in contents.records:
            items = store.items(stored)  # raises if the side file is not the record's
            assert items is not None and len(items) in (2, 4)
        if full_disk:
            assert not [name for name in files(root) if name.startswith(PREFIX)]
        # A later run gets there, whatever was left.
        store.write(after, make_items(4))
        assert store.status_of(CELL, CODE).kind == ("failed" if case.endswith("a failure") else "complete")


def test_a_full_disk_leaves_no_side_file_without_its_record(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, None, make_record())
    second_write = [at for at, step in enumerate(steps) if step == "write the second half"][1]
    with pytest.raises(OSError, match="No space left"):
        ResultStore(tmp_path / "r", files=FaultyLayer(second_write, full_disk=True)).write(
            make_record(), make_items()
        )
    assert files(tmp_path / "r") == []


def test_an_interrupt_just_after_the_rename_takes_nothing_away(tmp_path: Path) -> None:
    class Interrupted(FileLayer):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            if target.suffix == ".json":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ResultStore(tmp_path, files=Interrupted()).write(make_record(), make_items())
    assert ResultStore(tmp_path).status_of(CELL, CODE).kind == "complete"


def test_names_are_on_the_disk_in_the_order_a_reader_needs(tmp_path: Path) -> None:
    steps = [step for step in steps_of(tmp_path, None, make_record()) if step.startswith(("sync", "rename"))]
    assert steps[-6:] == ["sync", "rename", "sync_folder"] * 2


def test_sweep_takes_what_is_dead_and_leaves_what_may_live(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    record_path = store.write(make_record(), make_items())
    folder = record_path.parent
    own = folder / temporary_name()
    host, _, rest = own.name.removeprefix(PREFIX).partition("-")
    token = rest.partition("-")[2]
    dead = folder / f"{PREFIX}{host}-{_dead_pid()}-{token}"
    elsewhere_new = folder / f"{PREFIX}00000000-1-{token}"
    elsewhere_old = folder / f"{PREFIX}00000001-1-{token}"
    orphan_new = folder / "wanda--0.5--0.11111111.samples.parquet"
    orphan_old = folder / "wanda--0.5--0.22222222.samples.parquet"
    for path in (own, dead, elsewhere_new, elsewhere_old, orphan_new, orphan_old):
        path.write_bytes(b"half")
    for path in (own, elsewhere_old, orphan_old, *folder.glob(f"{CELL.stem}*")):
        age(path, 2 * ABANDONED_AFTER_S)
    assert store.status_of(CELL, CODE).kind == "complete"
    assert store.sweep() == sorted([dead, elsewhere_old, orphan_old])
    assert own.exists() and elsewhere_new.exists() and orphan_new.exists()
    assert store.status_of(CELL, CODE).kind == "complete"


def test_sweep_keeps_the_side_file_of_a_record_that_could_be_mended(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_record(), make_items())
    path.write_bytes(path.read_bytes()[:-20])
    age(next(path.parent.glob("*.parquet")), 2 * ABANDONED_AFTER_S)
    assert store.sweep() == []


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _write_often(root: Path, cells: list[Cell], failing: bool) -> None:
    store = ResultStore(root)
    for i in range(15):
        for cell in cells:
            record = make_failed(cell) if failing and i % 3 == 0 else make_record(cell)
            store.write(record, make_items(i + 1))
        store.sweep()


def test_many_processes_may_write_one_tree(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell(pattern="2:4")]
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write_often, args=(tmp_path, cells, failing))
        for failing in (False, True, False)
    ]
    for writer in writers:
        writer.start()
    store = ResultStore(tmp_path)
    while any(writer.is_alive() for writer in writers):
        assert not store.records().unreadable
        assert {store.status_of(cell, CODE).kind for cell in cells} <= {"missing", "failed", "complete"}
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for cell in cells:
        assert store.status_of(cell, CODE).kind == "complete"
    assert not list(tmp_path.rglob(f"{PREFIX}*"))


def test_a_record_is_json_that_other_programs_can_read(tmp_path: Path) -> None:
    path = ResultStore(tmp_path).write(make_record())
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert found["metrics"][0]["higher_is_better"] is False
    assert found["modules"][0]["warnings"] == ["déjà vu"]


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    replace_text(path, "één")
    replace_text(path, "twee")
    assert path.read_text(encoding="utf-8") == "twee"
    with pytest.raises(UnicodeEncodeError):
        replace_text(path, "\ud800")
    assert files(tmp_path) == ["report.html"] and path.read_text() == "twee"
