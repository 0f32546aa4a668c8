"""Reads records: checks the stored digest, migrates older schema versions, and reports errors in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from suite.cell import Spec
from suite.results.records.record import SCHEMA_VERSION, Record, body_digest

Kind = TypeVar("Kind", bound=Spec)
Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Converts a record body from one schema version to the next; it need not change `schema_version`."""


def _only_new_fields(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body unchanged: fields were added, and their defaults describe older records correctly."""
    return body


def _with_reference_speed(body: dict[str, Any]) -> dict[str, Any]:
    """Renames the field `floor` to `reference_speed`, and its phase to `reference speed`."""
    body = {("reference_speed" if key == "floor" else key): value for key, value in body.items()}
    if isinstance(phases := body.get("phases"), list):
        body["phases"] = [_renamed_phase(phase, "name") for phase in phases]
    body["failure"] = _renamed_phase(body.get("failure"), "phase")
    return body


def _renamed_phase(found: Any, key: str) -> Any:
    if isinstance(found, dict) and found.get(key) == "floor":
        return {**found, key: "reference speed"}
    return found


MIGRATIONS: Mapping[int, Migration] = {
    **dict.fromkeys(range(1, 6), _only_new_fields),
    6: _with_reference_speed,
    7: _only_new_fields,
    8: _only_new_fields,
}
"""Maps a schema version to the migration that leads to the next version."""


_SMALL_NUMBER = re.compile(rb"e-\d+(?=,?\n)")


class RecordError(ValueError):
    """A record cannot be read. The one-line message names the file and describes the fault."""

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(origin, reason)  # both, so that the exception can be pickled between processes
        self.origin = origin
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


class NewerSchemaError(RecordError):
    """The record was written by a newer prunebench."""


class DigestError(RecordError):
    """The record was changed after it was sealed, or was never sealed."""


class ParsedRecord(NamedTuple):
    """A record as parsed from its file.

    Attributes:
        record: the record in the current schema, with the digest stored in the file.
        schema_version: schema version of the file.
        as_written: whether `record_bytes` of the record yields the file exactly; otherwise the digest matches
            the file, but not the record.
    """

    record: Record
    schema_version: int
    as_written: bool

    def sealed(self) -> Record:
        """Returns the record with the digest of its own content."""
        return self.record if self.as_written else self.record.sealed()


def load_record(path: Path, *, migrations: Mapping[int, Migration] = MIGRATIONS) -> Record:
    """Reads the record in file `path`.

    Args:
        path: the JSON file.
        migrations: migrations from older schema versions.

    Returns:
        The record. If it was migrated, or is spelled differently from the output of `record_bytes`, it is
        sealed again, so its digest differs from the one in the file.

    Raises:
        FileNotFoundError: the file does not exist.
        RecordError: the record cannot be read; see `read_record`.
    """
    return parse_record(read_bytes(path), origin=str(path), migrations=migrations)


def parse_record(
    data: bytes, *, origin: str = "record", migrations: Mapping[int, Migration] = MIGRATIONS
) -> Record:
    """Reads a record from the bytes of its file; returns the same as `load_record`, raises as `read_record`.

    Args:
        data: JSON in UTF-8.
        origin: name of the record in messages.
        migrations: migrations from older schema versions.
    """
    return read_record(data, origin=origin, migrations=migrations).sealed()


def read_record(
    data: bytes, *, origin: str = "record", migrations: Mapping[int, Migration] = MIGRATIONS
) -> ParsedRecord:
    """Reads a record from the bytes of its file, together with the file's schema version and digest.

    Args:
        data: JSON in UTF-8.
        origin: name of the record in messages.
        migrations: migrations from older schema versions.

    Raises:
        NewerSchemaError: the record was written by a newer prunebench.
        DigestError: the body does not match the digest in the file.
        RecordError: the data is not complete JSON, or its keys and values are not those of a record.
    """
    record = _as_written(data)
    if record is not None:
        return ParsedRecord(record, SCHEMA_VERSION, True)
    # A record that is migrated or spelled differently (a default filled in, 1 as 1.0) gets a new digest.
    raw = _parse_json(data, origin)
    version = _schema_version(raw, origin)
    # Check the digest of the raw data, before defaults are filled in or values converted.
    _check_digest(raw, origin)
    return ParsedRecord(validated(Record, _migrate(raw, version, migrations, origin), origin), version, False)


def read_bytes(path: Path) -> bytes:
    """Returns the bytes of a record's file.

    Raises:
        FileNotFoundError: the file does not exist.
        RecordError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror or error}") from error


def record_bytes(record: Record) -> bytes:
    """Serializes a record to the bytes of its file: JSON in UTF-8, indented so that changes can be reviewed.

    Raises:
        ValueError: the record contains NaN or infinity.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def _as_written(data: bytes) -> Record | None:
    """Fast path: returns the record if `data` is exactly the output of `record_bytes` for an intact record.

    Most files are, and this takes less than half as long as the separate checks. It implies them: text that
    equals the serialization of a record is JSON without repeated keys, and contains exactly the values whose
    digest `is_intact` compares. None means only that the separate checks are needed.
    """
    try:
        record = Record.model_validate_json(data, strict=True)
        same = f"{record.model_dump_json(indent=1)}\n".encode() == _with_small_numbers_respelled(data)
        return record if same and record.schema_version == SCHEMA_VERSION and record.is_intact else None
    except ValueError:  # not a valid record, or a line with a small number has unusual spacing
        return None


def _with_small_numbers_respelled(data: bytes) -> bytes:
    """Rewrites 4e-05 as 0.00004; small numbers are all that pydantic spells differently from `json`."""
    pieces: list[bytes] = []
    done = 0
    # A string would end with a quote, so each match is a number, which starts after the last space.
    for found in _SMALL_NUMBER.finditer(data):
        start, end = data.rindex(b" ", 0, found.start()) + 1, found.end()
        pieces += data[done:start], to_json(float(data[start:end]))
        done = end
    return b"".join((*pieces, data[done:]))


def _parse_json(data: bytes, origin: str) -> dict[str, Any]:
    try:
        raw = json.loads(
            data.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        if not data.strip():
            raise RecordError(origin, "is empty") from error
        at_end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        cut = "is cut short" if at_end else "is not JSON"
        raise RecordError(origin, f"{cut} (line {error.lineno}, column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise RecordError(origin, f"is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise RecordError(origin, "is nested too deeply") from error
    except ValueError as error:
        raise RecordError(origin, str(error)) from error
    if not isinstance(raw, dict):
        raise RecordError(origin, f"is not a record: JSON {type(raw).__name__}, not an object")
    return raw


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers differ in which of two equal keys they use, so a record must not repeat a key.
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"has key {next(k for k in keys if keys.count(k) > 1)!r} twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"contains {name}, which is not allowed in a record")


def _schema_version(raw: dict[str, Any], origin: str) -> int:
    version = raw.get("schema_version")
    if type(version) is not int or version < 0:
        raise RecordError(origin, f"is not a record: schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            origin,
            f"has schema version {version}, this prunebench reads up to {SCHEMA_VERSION}: update prunebench",
        )
    return version


def _check_digest(raw: dict[str, Any], origin: str) -> None:
    stored = raw.get("body_digest")
    if not isinstance(stored, str) or not stored:
        raise DigestError(origin, "has no body_digest: it was never sealed")
    try:
        found = body_digest({key: value for key, value in raw.items() if key != "body_digest"})
    except (ValueError, RecursionError) as error:
        # A number beyond the range of floats, or half a surrogate pair: `record_bytes` never writes these.
        raise RecordError(origin, f"contains a value that cannot be stored: {error}") from error
    if found != stored:
        raise DigestError(
            origin, f"was changed after it was written: its body has digest {found[:12]}, not {stored[:12]}"
        )


def _migrate(
    raw: dict[str, Any], version: int, migrations: Mapping[int, Migration], origin: str
) -> dict[str, Any]:
    for step in range(version, SCHEMA_VERSION):
        if step not in migrations:
            raise RecordError(origin, f"has schema version {step}, which cannot be read any more")
        raw = {**migrations[step](raw), "schema_version": step + 1}
    return raw


def validated(kind: type[Kind], raw: dict[str, Any], origin: str) -> Kind:
    """Builds an object from JSON values in the current schema; does not check the digest of a record.

    Raises:
        RecordError: keys or values do not fit `kind`.
    """
    try:
        # Strict, so that no value is converted silently; from JSON, so that lists are accepted for tuples.
        return kind.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RecordError(origin, f"{where}: {first['msg']}{more}") from error


__all__ = [
    "MIGRATIONS",
    "DigestError",
    "Migration",
    "NewerSchemaError",
    "ParsedRecord",
    "RecordError",
    "load_record",
    "parse_record",
    "read_bytes",
    "read_record",
    "record_bytes",
    "validated",
]
