"""Records without their bulk against whole ones, and the short way of reading against the long one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.cell import AllocationSpec
from suite.results import ResultStore
from suite.results.records import reading
from suite.results.records.index import Contents, read_again, read_index, record_files
from suite.results.records.reading import RecordError, load_record, parse_record, record_bytes
from suite.results.records.record import SCHEMA_VERSION, Record
from suite.storage import processes
from tests.reports.synthetic_measured import measured_record
from tests.suite.results.examples import make_cell, make_failed, make_record
from tests.suite.results.test_reading import OLDER, models, mutated, sealed

WITHOUT_BULK: dict[str, Any] = {"modules": (), "divergences": (), "body_digest": ""}
FILES = [record_bytes(made.sealed()) for made in (make_record(), make_failed(), measured_record("wanda"))]
BODY = make_record().body()
MODULE = BODY["modules"][0]
SCHEMA = f'"schema_version": {SCHEMA_VERSION}'
BYTES = [b"", b" ", b"\n", b"0", b".0", b"e-5", b"-", b'"', b",", b"\xff", b"\\"]


def written(body: dict[str, Any]) -> bytes:
    """A file with that body and the digest it should have, spelled as the store spells it."""
    return json.dumps(json.loads(sealed(body)), indent=1, ensure_ascii=False).encode() + b"\n"


def verdict(read: Callable[[], Record]) -> tuple[type, str]:
    try:
        record = read()
    except RecordError as error:
        return type(error), error.reason
    return Record, record_bytes(record).decode()


def long_way(data: bytes) -> Record:
    """As for a file that is no record as it is written."""
    with mock.patch.object(reading, "_as_written", lambda data: None):
        return parse_record(data)


def assert_ways_agree(data: bytes) -> None:
    assert verdict(lambda: parse_record(data)) == verdict(lambda: long_way(data))


@pytest.mark.parametrize("data", FILES)
def test_what_is_written_goes_the_short_way(data: bytes) -> None:
    assert reading._as_written(data) == long_way(data)
    small = {**json.loads(data), "phases": [{"name": "solve", "seconds": s} for s in (4e-05, 5e-324, 1e-10)]}
    assert reading._as_written(record_bytes(parse_record(written(small)))) is not None


@pytest.mark.parametrize(
    "old, new",
    [
        ("25.5", "25.50"),
        ("25.5", "NaN"),
        ("25.5", "1e400"),
        ("1.5", "1.50001"),
        ("1.5", "1.5e-0"),
        ('"created"', '"created": "", "created"'),
        ("déjà", "d\\u00e9j\\u00e0"),
        *((SCHEMA, f'"schema_version": {SCHEMA_VERSION + step}') for step in (-1, 1)),
        ('"body_digest": "', '"body_digest": "x'),
        ("16,\n", "16.0,\n"),
        ("}\n", "}"),
        ("{\n", "\ufeff{\n"),
        (",\n", ","),
    ],
)
def test_a_changed_file_gets_the_verdict_of_the_long_way(old: str, new: str) -> None:
    text = FILES[0].decode()
    assert old in text
    assert_ways_agree(text.replace(old, new).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 3},
        {"schema_version": SCHEMA_VERSION},
        {"phases": [{"name": "solve", "seconds": 1}]},
        {"phases": [{"name": "solve", "seconds": 1e-05}]},
        {"warnings": ["1e-05,", "0.00001", " 3e-07"]},
        {"cell": {**BODY["cell"], "settings": {"n": -0.0, "m": 1e16, "k": 2**70}}},
        {"modules": [{**MODULE, "n_weights": "32"}]},
        {"modules": [{**MODULE, "layer": 0.0}]},
        {"modules": [{**MODULE, "extra": None}]},
        {"modules": None},
        {"answers": {"prompts": "built-in"}},
        {"divergences": [{"protocol": "p", "kl": [0.1], "agreement": ["0.9"]}]},
    ],
)
def test_a_sealed_record_that_is_odd_gets_the_verdict_of_the_long_way(change: dict[str, Any]) -> None:
    data = written({**BODY, **change})
    assert_ways_agree(data)
    assert_ways_agree(data.replace(b": ", b":"))
    assert_ways_agree(sealed({**BODY, **change}))


def test_an_integer_that_python_refuses_to_print_is_refused_either_way() -> None:
    data = FILES[0].replace(b'"depth": 2', b'"depth": 1' + b"0" * 4400)
    assert_ways_agree(data)
    assert verdict(lambda: parse_record(data))[0] is RecordError


@settings(max_examples=200)
@given(mutated())
def test_a_mutated_record_gets_the_verdict_of_the_long_way(body: dict[str, Any]) -> None:
    assert_ways_agree(written(body))
    stale = {**body, "body_digest": "0" * 64}
    assert_ways_agree(json.dumps(stale, indent=1, ensure_ascii=False).encode() + b"\n")


@settings(max_examples=400)
@given(st.sampled_from(FILES[:2]), st.integers(0, 2**16), st.integers(0, 2), st.sampled_from(BYTES))
def test_a_file_with_other_bytes_gets_the_verdict_of_the_long_way(
    data: bytes, at: int, width: int, new: bytes
) -> None:
    at %= len(data)
    assert_ways_agree(data[:at] + new + data[at + width :])


@settings(max_examples=60)
@given(models(Record))
def test_any_record_goes_the_short_way_or_gets_the_same_from_the_long_one(record: Record) -> None:
    assert_ways_agree(record_bytes(record.sealed()))


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_tree(root: Path) -> Path:
    """What a tree may hold: finished, failed, both, older, damaged ones, and what is no record."""
    store = ResultStore(root)
    measured = [measured_record("dense"), measured_record("wanda"), measured_record("wanda", "2:4")]
    for record in (make_record(), *measured):
        store.write(record)
    store.write(make_failed())
    store.write(make_failed(make_cell(pattern="0.7")))
    for path in OLDER.values():
        put(root / "older" / path.name, path.read_bytes())
    damaged = make_record(make_cell(pattern="0.6")).sealed()
    store.write(make_failed(damaged.cell))
    put(store.path_of(damaged.cell), record_bytes(damaged).replace(b"25.5", b"25.4"))
    folder = root / "odd"
    put(folder / "a--0.5--00000000.json", written({**BODY, "modules": [{**MODULE, "layer": "0"}]}))
    put(folder / "b--0.5--00000000.json", written({**BODY, "schema_version": 99}))
    put(folder / "c--0.5--00000000.json", b"")
    put(folder / "d--0.5--00000000.json", record_bytes(make_record()))
    put(folder / "e--0.5--00000000.json", written({**BODY, "answers": {"prompts": 1}}))
    (folder / "f--0.5--00000000.json").mkdir()
    (folder / "g--0.5--00000000.json").symlink_to("nowhere")
    put(folder / "notes.json", b"{}")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def slim(record: Record) -> Record:
    answers = record.answers and record.answers.model_copy(update={"answers": ()})
    return record.model_copy(update={**WITHOUT_BULK, "answers": answers})


def read_tree(root: Path, *, workers: int | None = None) -> Contents:
    return read_index(list(record_files([root])), workers=workers)


def assert_index(contents: Contents, root: Path) -> None:
    in_full = ResultStore(root).records()
    assert contents.unreadable == in_full.unreadable
    assert [one.path for one in contents.records] == [one.path for one in in_full.records]
    for found, stored in zip(contents.records, in_full.records, strict=True):
        assert found.record == slim(stored.record)
        assert record_bytes(found.record) == record_bytes(slim(stored.record)), "keys keep their order"
        data = stored.path.read_bytes()
        assert found.digest == stored.digest == json.loads(data)["body_digest"]
        assert (found.failure and found.failure.record) == (stored.failure and slim(stored.failure.record))
        assert read_again(found) == (load_record(found.path), data)


@pytest.mark.parametrize("workers", [None, 1, 2, 5])
def test_a_tree_has_an_index_of_the_records_the_store_finds(
    tree: Path, workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "BATCH", 3)
    contents = read_tree(tree, workers=workers)
    assert len(contents.records) == 6 + len(OLDER) and len(contents.unreadable) == 7
    assert sum(one.failure is not None for one in contents.records) == 1
    assert_index(contents, tree)
    paths = [one.path for one in (*contents.records, *contents.unreadable)]
    assert read_index(paths, workers=workers).unreadable == contents.unreadable


def test_an_index_of_nothing_is_empty() -> None:
    assert read_index([]) == read_index([], workers=2) == Contents((), ())


def test_what_is_equal_is_held_once_and_what_only_compares_equal_is_not(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for pattern, value in (("0.5", 1), ("0.6", 1.0), ("0.7", 1)):
        allocation = AllocationSpec(name="owl", settings={"m": value})
        store.write(make_record(make_cell(pattern=pattern, allocation=allocation)))
    first, second, third = (one.record for one in read_tree(tmp_path).records)
    assert first.environment is second.environment
    assert first.cell.allocation is third.cell.allocation
    kinds = [type(one.cell.allocation.settings["m"]) for one in (first, second) if one.cell.allocation]
    assert kinds == [int, float]


def test_a_whole_record_that_is_gone_or_another_is_refused(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_record())
    (found,) = read_tree(tmp_path).records
    store.write(make_record(created="2026-01-01T00:00:00Z"))
    with pytest.raises(RecordError, match="was replaced since"):
        read_again(found)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RecordError, match="is cut short"):
        read_again(found)
    path.unlink()
    with pytest.raises(RecordError, match="is gone since"):
        read_again(found)
