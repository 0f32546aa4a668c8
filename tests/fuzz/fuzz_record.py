"""Fuzzes the reader of records: `python tests/fuzz/fuzz_record.py -max_total_time=60`.

A mutated record has another digest, so nothing but the digest check would ever be reached: every other input
is sealed again before it is read.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["suite"]):
    from suite.results.records.reading import RecordError, parse_record, record_bytes
    from suite.results.records.record import body_digest

from tests.fuzz.campaign import run

RECORDS = Path(__file__).parents[1] / "suite" / "results" / "data"
KEYS = (
    *("schema_version", "status", "created", "cell", "code", "environment", "model", "calibration", "phases"),
    *("metrics", "windows", "divergences", "tasks", "answers", "modules", "warnings", "failure", "side_file"),
    *("body_digest", "higher_is_better", "direction", "value", "protocol", "settings", "nll", "shape"),
    *("complete", "failed", "float32", "lower", "null", "true", "NaN", "Infinity", "1e999", "\\ud800"),
)


def check(data: bytes) -> None:
    """A record that reads and reads again as the same, or a `RecordError` of one line; nothing else."""
    try:
        record = parse_record(data, origin="x")
    except RecordError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error), str(error)
        return
    again = record_bytes(record)
    read = parse_record(again)
    assert read == record, "reads again as another record"
    assert record_bytes(read) == again, "is written again as other bytes"
    assert read.is_intact and read.cell.digest == record.cell.digest


def sealed(data: bytes) -> bytes | None:
    """The same document with the digest it should have; None where that cannot be had."""
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            return None
        body = {key: value for key, value in document.items() if key != "body_digest"}
        return json.dumps({**body, "body_digest": body_digest(body)}).encode()
    except (ValueError, RecursionError):
        return None


def one_input(data: bytes) -> None:
    """One input as it is, and sealed."""
    check(data)
    resealed = sealed(data)
    if resealed is not None:
        check(resealed)


def seeds() -> list[bytes]:
    """A stored record, and what is left of it when whole parts are taken out."""
    found = []
    for path in sorted(RECORDS.glob("*.json")):
        whole = json.loads(path.read_bytes())
        short = {**whole, "modules": whole["modules"][:1]}
        bare = {key: value for key, value in short.items() if key not in ("windows", "phases", "metrics")}
        found += [json.dumps(body).encode() for body in (whole, short, bare)]
    return found


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Every other time changes the document and not its spelling: most changed bytes are no JSON any more."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            pass
        else:
            for _ in range(chance.randint(1, 3)):
                document = changed(document, chance)
            found = json.dumps(document).encode()
            if len(found) <= max_size:
                return found
    return atheris.Mutate(data, max_size)


def changed(value: Any, chance: random.Random) -> Any:
    """The document with one value in it put another way, taken out, doubled, or moved to another key."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = {other: inner for other, inner in value.items() if other != key}
        kind = chance.random()
        if kind < 0.1:
            return rest
        if kind < 0.2:
            return {**rest, chance.choice(KEYS): value[key]}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        inner = chance.choice([[], [value[place]] * 2, [changed(value[place], chance)]])
        return [*value[:place], *inner, *value[place + 1 :]]
    if isinstance(value, str) and chance.random() < 0.5:
        return chance.choice([value[:-1], value + value, value.upper(), chance.choice(KEYS)])
    if isinstance(value, int | float) and chance.random() < 0.5:
        return chance.choice([-value, value + 1, float(value) if abs(value) < 1e300 else 0, not value])
    return chance.choice([None, True, 0, 1, 3, -1, 2**64, 0.5, -0.0, 1e308, "", "0.5", [], {}, KEYS[0]])


if __name__ == "__main__":
    run(one_input, seeds=seeds(), keys=KEYS, max_len=16384, mutate=mutate)
