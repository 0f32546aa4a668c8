from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from methods.layer_report import LayerReport
from suite.cell import SettingValue
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
from suite.results.records.record import SCHEMA_VERSION, Metric, ModuleReport, Record, SideFile, body_digest
from tests.suite.results.examples import make_cell, make_failed, make_record


def stored(record: Record, **changes: Any) -> bytes:
    """The record's file with some top-level keys changed and the digest made right again."""
    body = {**record.body(), **changes}
    return json.dumps({**body, "body_digest": body_digest(body)}).encode()


def test_what_a_method_says_of_a_module_is_stored_whole() -> None:
    said = LayerReport("m", 1, "mlp", (4, 6), 5, 0.5, 0.25, 0.01, 2, 96, ("few tokens",))
    told = ModuleReport.of(said)
    assert told.model_dump(exclude={"n_weights"}) == asdict(said)
    assert (told.n_weights, told.sparsity) == (24, said.sparsity)


def test_a_record_comes_back_as_it_was_written() -> None:
    for record in (make_record().sealed(), make_failed().sealed()):
        assert parse_record(record_bytes(record)) == record
        assert parse_record(record_bytes(record)).is_intact


finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(codec="utf-8"), max_size=20)
scalars: st.SearchStrategy[Any] = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), finite, text, st.none()
)


@settings(max_examples=60)
@given(
    values=st.dictionaries(text, st.one_of(scalars, st.dictionaries(text, scalars, max_size=3)), max_size=5),
    nll=st.lists(st.one_of(st.none(), finite), max_size=5),
    warnings=st.lists(text, max_size=3),
    seconds=st.floats(0, 1e300),
)
def test_whatever_a_record_holds_comes_back(
    values: dict[str, SettingValue], nll: list[float | None], warnings: list[str], seconds: float
) -> None:
    record = make_record(make_cell(settings=values), warnings=tuple(warnings))
    losses = record.windows[0].model_copy(update={"nll": tuple(nll)})
    phase = record.phases[0].model_copy(update={"seconds": seconds})
    record = record.model_copy(update={"windows": (losses,), "phases": (phase,)}).sealed()
    read = parse_record(record_bytes(record))
    assert read == record
    assert read.cell.digest == record.cell.digest
    assert record_bytes(read) == record_bytes(record)


def test_every_way_to_cut_a_record_short_is_noticed() -> None:
    whole = record_bytes(make_record().sealed())
    for length in range(len(whole) - 1):  # the last byte is a line end
        with pytest.raises(RecordError):
            parse_record(whole[:length])


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(data: st.DataObject) -> None:
    record = make_record().sealed()
    whole = bytearray(record_bytes(record))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        read = parse_record(bytes(whole))
    except RecordError as error:
        assert "\n" not in str(error)
    else:
        assert read == record


@settings(max_examples=200)
@given(
    st.one_of(st.binary(max_size=60), st.recursive(scalars, lambda x: st.lists(x) | st.dictionaries(text, x)))
)
def test_anything_else_is_a_record_error(found: Any) -> None:
    data = found if isinstance(found, bytes) else json.dumps(found).encode()
    with pytest.raises(RecordError):
        parse_record(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b'{"a": [1, 2', "is cut short (line 1, column 12)"),
        (b"hello", "is not JSON (line 1, column 1)"),
        (b"[]", "is not a record: JSON list, not an object"),
        (b"{}", "is not a record: schema_version is None"),
        (b'{"schema_version": true}', "is not a record: schema_version is True"),
        (b'{"schema_version": 1}', "has no body_digest: it was never sealed"),
        (b'{"a": NaN}', "contains NaN, which is not allowed in a record"),
        (b'{"a": 1, "a": 2}', "has key 'a' twice in one object"),
        (b"\xff", "is not UTF-8 (byte 0)"),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(data, origin="x.json")
    assert str(caught.value) == f"x.json: {reason}"


@pytest.mark.parametrize("value", ["1e999", '"\\ud800"', "1" * 5000])
def test_a_value_json_can_spell_but_no_record_can_hold_is_refused(value: str) -> None:
    data = f'{{"schema_version": 1, "body_digest": "x", "a": {value}}}'.encode()
    with pytest.raises(RecordError):
        parse_record(data)


def test_an_edited_record_is_refused() -> None:
    data = record_bytes(make_record().sealed()).replace(b"25.5", b"24.5")
    with pytest.raises(DigestError, match="was changed after it was written"):
        parse_record(data)


def test_a_record_of_a_newer_prunebench_says_so() -> None:
    with pytest.raises(NewerSchemaError, match="update prunebench"):
        parse_record(stored(make_record(), schema_version=SCHEMA_VERSION + 1))


def test_keys_and_values_that_are_not_a_records_are_refused() -> None:
    with pytest.raises(RecordError, match=r"surprise: Extra inputs are not permitted"):
        parse_record(stored(make_record(), surprise=1))
    with pytest.raises(RecordError, match=r"created: Input should be a valid string"):
        parse_record(stored(make_record(), created=5))
    metric = {**make_record().body()["metrics"][0], "higher_is_better": True}
    with pytest.raises(RecordError, match="higher_is_better is True, but direction is 'lower'"):
        parse_record(stored(make_record(), metrics=[metric]))


def test_an_older_record_is_migrated_after_its_digest_was_checked() -> None:
    body = make_record().body()
    older = {**{k: v for k, v in body.items() if k != "created"}, "date": "2025-01-01", "schema_version": 0}
    data = json.dumps({**older, "body_digest": body_digest(older)}).encode()

    def migration(old: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in old.items() if k != "date"}, "created": old["date"]}

    record = parse_record(data, migrations={**MIGRATIONS, 0: migration})
    assert (record.schema_version, record.created) == (SCHEMA_VERSION, "2025-01-01")
    assert record.is_intact
    with pytest.raises(RecordError, match="schema version 0, which cannot be read any more"):
        parse_record(data)
    with pytest.raises(DigestError):
        parse_record(data.replace(b"2025-01-01", b"2026-01-01"), migrations={**MIGRATIONS, 0: migration})


def test_a_record_of_the_first_schema_still_loads_and_is_still_found_by_its_cell() -> None:
    path = Path(__file__).with_name("data") / "llm-barber--2of4--27a94730.json"
    record = load_record(path)
    assert record.schema_version == SCHEMA_VERSION
    assert record.cell.stem == path.stem
    assert record.cell.allocation is None
    assert record.code.part_versions == {}
    assert [module.n_tokens for module in record.modules] == [None] * 14
    assert all(module.swaps is not None for module in record.modules)


def test_nothing_that_is_not_finite_gets_into_a_record() -> None:
    with pytest.raises(ValidationError):
        Metric(name="perplexity", protocol="p", value=float("nan"), direction="lower")
    with pytest.raises(ValidationError):
        WindowLosses(
            protocol="p", corpus_digest="", corpus_revision="", seqlen=2, limit=None, nll=(float("inf"),)
        )
    with pytest.raises(ValidationError, match="has no value, but its status is 'ok'"):
        Metric(name="perplexity", protocol="p", value=None, direction="lower")


def test_a_side_file_lies_beside_its_record() -> None:
    for name in ("../x.parquet", "/etc/passwd", "a/b", "..", ""):
        with pytest.raises(ValidationError):
            SideFile(name=name, sha256="", rows=1)


def test_a_failed_record_says_why_and_a_complete_one_did_not_fail() -> None:
    with pytest.raises(ValidationError):
        make_record(status="failed")
    with pytest.raises(ValidationError):
        make_failed(status="complete")


def test_loading_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(FileNotFoundError):
        load_record(path)
    path.write_bytes(b"{")
    with pytest.raises(RecordError) as caught:
        load_record(path)
    assert str(caught.value).startswith(f"{path}: is cut short")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(RecordError, match="cannot be read"):
        load_record(tmp_path)
