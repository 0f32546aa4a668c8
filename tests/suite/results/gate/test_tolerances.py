from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.errors import InputError
from suite.results.gate import Tolerance, load_tolerances
from suite.results.gate.tolerances import parse_tolerances


def error_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_tolerances(text.encode(), file="own.toml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_changes_what_it_names_and_nothing_else() -> None:
    own = parse_tolerances(b"significance = 0.01\n[perplexity]\nrelative = 0.03\n", file="own.toml")
    built_in = load_tolerances()
    assert (own.significance, own.origin) == (0.01, "own.toml")
    assert own.of("perplexity", "any").relative == 0.03
    assert own.of("kl_divergence", "any") == built_in.of("kl_divergence", "any")
    assert load_tolerances().of("perplexity", "any").relative == 0.01, "the built-in ones stay"


def test_one_protocol_may_have_its_own() -> None:
    own = parse_tolerances(b'[perplexity.protocols."c4-token-s2048"]\nabsolute = 0.5\n', file="own.toml")
    assert own.of("perplexity", "c4-token-s2048") == Tolerance(absolute=0.5)
    assert own.of("perplexity", "wiki-sample-token-s512").relative == 0.01


def test_a_table_is_taken_whole() -> None:
    own = parse_tolerances(b"[prune_seconds]\nrelative = 0.1\n", file="own.toml")
    assert own.of("prune_seconds", "").reach(10.0) == pytest.approx(1.0), "no absolute part is left"


def test_the_larger_of_both_parts_holds() -> None:
    both = Tolerance(relative=0.1, absolute=2.0)
    assert (both.reach(10.0), both.reach(100.0), both.reach(-100.0)) == (2.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[perplexty]\nrelative = 1",
            "own.toml: 'perplexty' is no metric of the gate; did you mean 'perplexity'?",
        ),
        ("[perplexity]\nrelativ = 1", "own.toml: perplexity.relativ: unknown key; did you mean 'relative'?"),
        (
            "[perplexity]\nrelative = -1",
            "own.toml: perplexity.relative: must be greater than or equal to 0, not -1",
        ),
        ("[perplexity]\nrelative = nan", "own.toml: perplexity.relative: must be a finite number, not nan"),
        ("[perplexity]\nrelative = true", "own.toml: perplexity.relative: must be a valid number, not true"),
        ("perplexity = 0.1", "own.toml: perplexity: must be a table, such as [perplexity]"),
        ("[perplexity]\n", "own.toml: perplexity: give relative, absolute, or ignore = true"),
        ("[perplexity.protocols.x]\n", "own.toml: perplexity: give relative, absolute, or ignore = true"),
        (
            "[perplexity.protocols.x]\nabsolut = 1",
            "own.toml: perplexity.protocols.x.absolut: unknown key; did you mean 'absolute'?",
        ),
        ("significance = 1.5", "own.toml: significance: must be less than 1, not 1.5"),
        ("significance = 0", "own.toml: significance: must be greater than 0, not 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    assert error_of(text) == message


@pytest.mark.parametrize("text", ["[perplexity", "\ufeff[[", "a = 1\na = 2"])
def test_what_is_no_toml_is_said_so(text: str) -> None:
    assert error_of(text).startswith("own.toml: is not TOML")


def test_bytes_that_are_no_text_and_a_file_that_is_not_there_are_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not TOML in UTF-8"):
        parse_tolerances(b"\xff\xfe", file="own.toml")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_tolerances(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_tolerances(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_tolerances_or_an_input_error(data: bytes) -> None:
    try:
        parse_tolerances(data, file="own.toml")
    except InputError as error:
        assert "\n" not in str(error)


WORDS = st.sampled_from(
    ["perplexity", "task", "sparsity", "relative", "absolute", "ignore", "protocols", "significance", "x"]
)
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-3, 3), st.floats(allow_nan=True), st.text(max_size=3)),
    lambda inner: st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def as_toml(table: dict[str, object], path: str = "") -> str:
    plain = [f"{k} = {_value(v)}" for k, v in table.items() if not isinstance(v, dict)]
    inner = [as_toml(v, f"{path}.{k}" if path else k) for k, v in table.items() if isinstance(v, dict)]
    return "\n".join([*([f"[{path}]"] if path else []), *plain, *inner])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000) + '"'
    return str(value)


@given(st.dictionaries(WORDS, VALUES, max_size=3))
def test_any_document_is_tolerances_or_an_input_error(document: dict[str, object]) -> None:
    text = as_toml(document)
    tomllib.loads(text)
    try:
        found = parse_tolerances(text.encode(), file="own.toml")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert 0 < found.significance < 1
        assert found.of("perplexity", "x").reach(1.0) >= 0
