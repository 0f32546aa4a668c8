"""Fuzzes the reader of suite files: `python tests/fuzz/fuzz_suite.py -max_total_time=60`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["suite"]):
    from suite.planning.suite_file import parse_suite
    from suite.planning.toml_lines import key_lines

from methods.errors import InputError
from tests.fuzz.campaign import run

SUITES = Path(__file__).parents[2] / "suite" / "templates"
KEYS = (
    *("name", "models", "patterns", "dtype", "threads", "calibration", "methods", "perplexity", "divergence"),
    *("tasks", "answers", "speed", "settings", "allocation", "seeds", "n_samples", "seqlen", "max_tokens"),
    *("[[", "]]", "[", "]", "{", "}", "=", '"""', "'''", "true", "nan", "inf", "1979-05-27", '"2:4"', "0x1F"),
)


def one_input(data: bytes) -> None:
    """A suite that reads the same again, or an `InputError` of one line; every line there is in the file."""
    try:
        config = parse_suite(data, file="x.toml")
    except InputError as error:
        assert str(error).startswith("x.toml") and "\n" not in str(error), str(error)
    else:
        again = parse_suite(data, file="x.toml")
        assert again == config and again.places == config.places, "reads again as another suite"
        written = config.model_dump(exclude_unset=True)
        same = type(config).model_validate(written)
        assert same.model_dump() == config.model_dump(), "is another suite once it was read"
    try:
        text = data.decode("utf-8-sig")
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values()), lines


def seeds() -> list[bytes]:
    """The built-in suites, and every kind of value and table that TOML has."""
    values = b"a.'b c'.\"d\" = [1, [2.5, {e = 'x', f.g = 1979-05-27}], '''y\n''']\n"
    tables = b'[[h]]\n[h.i]\nj = """k"""\n'
    return [*(path.read_bytes() for path in sorted(SUITES.glob("*.toml"))), values + tables]


if __name__ == "__main__":
    run(one_input, seeds=seeds(), keys=KEYS, max_len=4096)
