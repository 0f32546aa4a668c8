"""The reader of records against cut, older, newer, mutated and generated ones."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from suite.cell import Cell, SettingValue
from suite.results.records.items import WindowLosses
from suite.results.records.reading import (
    MIGRATIONS,
    DigestError,
    NewerSchemaError,
    RecordError,
    load_record,
    parse_record,
    record_bytes,
)
from suite.results.records.record import SCHEMA_VERSION, Metric, Record, SideFile, body_digest
from suite.results.records.store import ResultStore
from tests.suite.results.examples import CODE, make_failed, make_record

OLDER = {
    json.loads(path.read_bytes())["schema_version"]: path
    for path in sorted(Path(__file__).with_name("data").glob("*.json"))
}


def sealed(body: dict[str, Any]) -> bytes:
    """A file with that body and the digest it should have."""
    body = {key: value for key, value in body.items() if key != "body_digest"}
    return json.dumps({**body, "body_digest": body_digest(body)}).encode()


def test_a_real_record_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wanda--0.5--00000000.json"
    for fixture in OLDER.values():
        whole = fixture.read_bytes()
        assert whole.endswith(b"}\n")
        for length in range(len(whole) - 1):
            with pytest.raises(RecordError) as caught:
                parse_record(whole[:length])
            assert "\n" not in str(caught.value)
        for length in (0, 1, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:length])
            with pytest.raises(RecordError, match=r"is empty|is cut short"):
                load_record(path)
        assert load_record(fixture) == parse_record(whole[:-1]), "without its line end nothing is missing"


def test_every_older_schema_has_a_record_that_was_written_by_it() -> None:
    assert set(OLDER) == set(MIGRATIONS) == set(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", OLDER)
def test_an_older_record_is_read_and_written_as_one_of_today(version: int, tmp_path: Path) -> None:
    record = load_record(OLDER[version])
    assert record.schema_version == SCHEMA_VERSION and record.is_intact
    assert record.cell.stem == OLDER[version].stem, "it still answers its cell"
    assert parse_record(record_bytes(record)) == record
    damaged = OLDER[version].read_bytes().replace(b'"status": "complete"', b'"status": "completed"')
    with pytest.raises(DigestError):
        parse_record(damaged)


def test_what_measured_the_machine_s_speed_is_read_under_its_new_name() -> None:
    stored = json.loads(OLDER[6].read_bytes())
    assert "reference_speed" not in stored
    record = load_record(OLDER[6])
    assert record.reference_speed is not None
    assert record.reference_speed.model_dump() == stored["floor"]
    names = [phase["name"] for phase in stored["phases"]]
    assert [phase.name for phase in record.phases] == [
        "reference speed" if name == "floor" else name for name in names
    ]
    assert "floor" in names


def test_a_failure_while_the_speed_was_measured_names_the_phase_anew() -> None:
    failed = json.loads(record_bytes(make_failed()))
    failed |= {"schema_version": 6, "failure": {**failed["failure"], "phase": "floor"}}
    failed["floor"] = failed.pop("reference_speed")
    read = parse_record(sealed(failed))
    assert read.failure is not None and read.failure.phase == "reference speed"


def test_a_record_from_the_future_stays_where_it_is_and_says_what_to_do(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_record())
    body = {**make_record().body(), "schema_version": SCHEMA_VERSION + 1, "a_field_of_tomorrow": [1]}
    path.write_bytes(sealed(body))
    with pytest.raises(NewerSchemaError) as caught:
        load_record(path)
    newer = f"has schema version {SCHEMA_VERSION + 1}, this prunebench reads up to {SCHEMA_VERSION}"
    advice = f"{newer}: update prunebench"
    assert caught.value.reason == advice
    assert [entry.reason for entry in store.records().unreadable] == [advice]
    state = store.status_of(make_record().cell, CODE)
    assert (state.kind, state.reason) == ("broken", f"{path}: {advice}")
    assert store.sweep() == [] and path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"phases": [{"name": "solve", "seconds": 1}]},
        {"warnings": None},
        {"modules": None, "metrics": None},
    ],
)
def test_what_is_spelled_or_left_out_otherwise_is_read_with_the_digest_it_then_has(
    change: dict[str, Any],
) -> None:
    body = {k: v for k, v in {**make_record().body(), **change}.items() if v is not None}
    record = parse_record(sealed({**body, "side_file": None}))
    assert record.is_intact
    assert parse_record(record_bytes(record)) == record


def strategy_of(annotation: Any, least: Any = None) -> st.SearchStrategy[Any]:
    """Values of a field's type, from `least` on."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return models(annotation)
    if annotation is SettingValue:
        return SETTINGS
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(strategy_of(argument, least) for argument in arguments))
    if origin is tuple:
        return st.lists(strategy_of(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, strategy_of(arguments[1]), max_size=2)
    return {
        type(None): st.none(),
        bool: st.booleans(),
        str: TEXT,
        int: st.integers(-(2**63) if least is None else least, 2**63),
        float: st.floats(least, allow_nan=False, allow_infinity=False),
    }[annotation]


TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
SETTINGS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def models(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Objects of a record's classes, made of their fields; rules between fields are kept by hand."""
    if model is SideFile:
        name = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True)
        return st.builds(SideFile, name=name, sha256=TEXT, rows=st.integers(0, 2**40))
    fields = {
        name: strategy_of(
            field.annotation,
            next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None),
        )
        for name, field in model.model_fields.items()
        if name not in ("schema_version", "body_digest")
    }
    if model is Metric:
        return st.fixed_dictionaries(fields).map(
            lambda m: Metric(**{**m, "status": m["status"] if m["value"] is not None else "not run"})
        )
    if model is Record:
        fields["status"], fields["failure"] = st.just("complete"), st.none()
        losses = st.lists(models(WindowLosses), max_size=2, unique_by=lambda found: found.protocol)
        fields["windows"] = losses.map(tuple)
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(models(Record))
def test_any_record_comes_back_as_it_was_written(record: Record) -> None:
    record = record.sealed()
    data = record_bytes(record)
    read = parse_record(data)
    assert read == record and read.is_intact
    assert record_bytes(read) == data
    assert isinstance(read.cell, Cell) and read.cell.digest == record.cell.digest


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The JSON of a valid record with a few values put another way, taken out, or moved to another key."""
    body = draw(st.sampled_from([make_record().body(), make_failed().body()]))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = body
        while True:
            places = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(at[place], dict | list) and at[place] and draw(st.integers(0, 3)):
                at = at[place]
                continue
            kind = draw(st.sampled_from(["another", "out", "moved"]))
            if kind == "another":
                at[place] = draw(DOCUMENTS)
            elif kind == "out":
                del at[place]
            elif isinstance(at, dict):
                at[draw(st.sampled_from(["status", "failure", "value", "extra", "name"]))] = at.pop(place)
            break
    return dict(body)


DOCUMENTS = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), TEXT),
        *(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["complete", "failed", "lower"])),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def read_or_refused(data: bytes) -> Record | None:
    try:
        record = parse_record(data, origin="x")
    except RecordError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)
        return None
    assert parse_record(record_bytes(record)) == record and record.is_intact
    return record


@settings(max_examples=400)
@given(mutated())
def test_a_mutated_record_is_read_whole_or_refused(body: dict[str, Any]) -> None:
    if (record := read_or_refused(sealed(body))) is not None:
        # Whatever the document said, the record says: nothing was dropped on the way.
        def is_within(said: Any, read: Any) -> bool:
            if isinstance(said, dict) and isinstance(read, dict):
                return all(key in read and is_within(value, read[key]) for key, value in said.items())
            if isinstance(said, list) and isinstance(read, list):
                return len(said) == len(read) and all(map(is_within, said, read))
            return bool(said == read)

        assert is_within({**body, "schema_version": SCHEMA_VERSION}, record.body())


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([*Record.model_fields, "x"]), DOCUMENTS, max_size=8))
def test_any_document_is_refused_or_a_record(body: dict[str, Any]) -> None:
    assert read_or_refused(json.dumps(body).encode()) is None
    read_or_refused(sealed({"schema_version": SCHEMA_VERSION, **body}))
