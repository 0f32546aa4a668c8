"""The scanner of lines against tomllib: it finds the same keys, whatever they are and however spelled."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from suite.planning.toml_lines import KeyPath, key_lines

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=5)
keys = st.one_of(st.sampled_from(["a", "b-c", "1", "", "a.b", "[x]", "x = 1 # ", '"', "'"]), texts)


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


NUMBERS = ["1", "0x1F", "1_000", "+1.5e-3", "nan", "-inf", "true"]
TIMES = ["1979-05-27", "07:32:00.5", "1979-05-27 07:32:00Z", "1979-05-27T07:32:00-07:00"]
MULTILINE = [
    *('"""\n[x]\n z"""', '"""a = " z"""', '"""\\""" z"""', '""" \\\n  y z"""', '"""z"""""'),
    *("'''\n[[x]]\n z'''", "'''it's z'''", "'''a = '' z'''", "'''\\'''", "'''z'''''"),
]
GAPS = ["", "\n", "\r\n", " # ]}'''\"\"\"\n", "\t"]
HEADERS = ["[t{}]", "[[many]]", "[deep.'{}'.x]", "[[many]]\n[many.inner]", '[ u{} . "]" ] # [']


def quoted(text: str) -> str:
    """As a string on one line; JSON's are TOML's too."""
    return json.dumps(text, ensure_ascii=False)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Tables and values of every kind and spelling."""

    def value(depth: int = 0, *, on_a_line: bool = False) -> str:
        kinds = ["number", "time", "string", "literal", *([] if on_a_line else ["multiline"])]
        kind = draw(st.sampled_from([*kinds, *(["array", "table"] if depth < 3 else [])]))
        if kind == "array":
            gaps = st.sampled_from(GAPS[:1] if on_a_line else GAPS)
            inner = [value(depth + 1, on_a_line=on_a_line) for _ in range(draw(st.integers(0, 3)))]
            return f"[{','.join(f'{draw(gaps)}{entry}{draw(gaps)}' for entry in inner)}]"
        if kind == "table":
            names = draw(st.lists(keys, max_size=3, unique=True))
            pairs = (f"{quoted(name)} = {value(depth + 1, on_a_line=True)}" for name in names)
            return f"{{{', '.join(pairs)}}}"
        return {
            "number": lambda: draw(st.sampled_from(NUMBERS)),
            "time": lambda: draw(st.sampled_from(TIMES)),
            "string": lambda: quoted(draw(texts)),
            "literal": lambda: "'" + draw(st.text("ab#[]{}=,. \\", max_size=5)) + "'",
            "multiline": lambda: draw(st.sampled_from(MULTILINE)),
        }[kind]()

    def pairs(count: int) -> list[str]:
        names = draw(st.lists(keys, max_size=count, unique=True))
        return [f"{quoted(name)} = {value()}{draw(st.sampled_from(GAPS))}" for name in names]

    lines = pairs(3)
    for place in range(draw(st.integers(0, 3))):
        lines += [draw(st.sampled_from(HEADERS)).format(place), *pairs(2)]
    return "\n".join(lines)


@settings(max_examples=400)
@given(documents())
def test_it_finds_the_keys_that_tomllib_finds(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # two keys made the same table
        return
    lines = key_lines(text)
    assert set(lines) == set(paths(document)), "it lost its way in a document that tomllib reads"
    source = text.split("\n")
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in source[line - 1] or quoted(path[-1]) in source[line - 1]


@settings(max_examples=300)
@given(st.text("ab.=[]{}\"'#\n \t,1\\-:T\r", max_size=30))
def test_of_any_text_it_finds_the_keys_that_tomllib_finds_or_none(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)
    assert set(lines) in (set(), set(paths(document)))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
