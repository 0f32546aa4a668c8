from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.planning.toml_lines import KeyPath, key_lines, nearest_line

DOCUMENT = '''\
# a comment = with [brackets]
name = "x # no comment"
dotted.key."with.dot" = 1
text = """
fake = 1
[[fake]]
"quoted" \\""" still inside"""""
raw = \'\'\'
[fake]
\'\'\'
list = [1, # one ]
  [2, 3],
  { a = 4, b.c = 5 },
]
when = 1979-05-27 07:32:00

[[methods]]  # first
name = 'a'
[methods.deep.table]
k = { l = [ "m]", 'n}' ] }

[[ methods ]]
name = "b"
[[methods.inner]]
x = 1
[[methods.inner]]
"y" = 2
[late.child]
[late]
z = 0
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("dotted",), 3),
        (("dotted", "key", "with.dot"), 3),
        (("text",), 4),
        (("raw",), 8),
        (("list",), 11),
        (("list", 0), 11),
        (("list", 1), 12),
        (("list", 1, 1), 12),
        (("list", 2, "b", "c"), 13),
        (("when",), 15),
        (("methods",), 17),
        (("methods", 0), 17),
        (("methods", 0, "name"), 18),
        (("methods", 0, "deep"), 19),
        (("methods", 0, "deep", "table", "k", "l", 1), 20),
        (("methods", 1), 22),
        (("methods", 1, "name"), 23),
        (("methods", 1, "inner", 0, "x"), 25),
        (("methods", 1, "inner", 1), 26),
        (("methods", 1, "inner", 1, "y"), 27),
        (("late",), 29),
        (("late", "child"), 28),
        (("late", "z"), 30),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_kind_of_key_is_found_on_its_line(path: KeyPath, line: int, line_end: str) -> None:
    text = DOCUMENT.replace("\n", line_end)
    tomllib.loads(text)
    assert key_lines(text)[path] == line


def test_a_missing_key_is_placed_where_it_should_have_been() -> None:
    lines = key_lines(DOCUMENT)
    assert nearest_line(lines, ("methods", 1, "settings", "x")) == 22
    assert nearest_line(lines, ("nothing",)) is None


@pytest.mark.parametrize("text", ["a = [1,\n", "a\n", "[a\n", "= 1", 'a = "', "{", "a = {b = 1"])
def test_what_it_does_not_understand_gets_no_line(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        key_lines(text)
        tomllib.loads(text)


# Every value is its own number, so the line that holds it is known without reading TOML.
bare = st.sampled_from(["a", "b-c", "d_1", '"q.r"', "'s t'"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    numbers = iter(range(1000, 2000))
    space = st.sampled_from(["", " ", "\t"])

    def gap() -> str:
        return draw(st.sampled_from(["", "\n", " # ] } = \n", "\n\n"]))

    def value(depth: int) -> str:
        kind = draw(st.integers(0, 3 if depth < 2 else 0))
        if kind == 1:
            inner = [f"{gap()}{value(depth + 1)}{gap()}" for _ in range(draw(st.integers(0, 3)))]
            return f"[{','.join(inner)}{gap()}]"
        if kind == 2:
            keys = draw(st.lists(bare, max_size=3, unique=True))
            return "{" + ",".join(f" {key} = {value_on_a_line()}" for key in keys) + "}"
        if kind == 3:
            return f'"""\nx = [ {next(numbers)}\n"""'
        return str(next(numbers))

    def value_on_a_line() -> str:
        return draw(st.sampled_from([f"{next(numbers)}", f"'{{ # {next(numbers)}'"]))

    def pairs() -> str:
        keys = draw(st.lists(bare, max_size=3, unique=True))
        return "".join(f"{draw(space)}{key}{draw(space)}={draw(space)}{value(0)}{gap()}\n" for key in keys)

    text = pairs()
    for place in range(draw(st.integers(0, 4))):
        header = draw(st.sampled_from([f"[t{place}]", "[[many]]", f"[u{place} . {draw(bare)}]"]))
        text += f"{header}\n{pairs()}"
    return text


@given(documents())
def test_a_value_stands_on_the_line_that_is_given_for_it(text: str) -> None:
    document = tomllib.loads(text)
    lines, source = key_lines(text), text.split("\n")

    def check(value: Any, path: KeyPath) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                check(inner, (*path, key))
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                check(inner, (*path, place))
        elif isinstance(value, int):
            assert str(value) in source[lines[path] - 1]
        else:
            number = value.strip().rpartition(" ")[2]
            assert number in "".join(source[lines[path] - 1 : lines[path] + 1])

    check(document, ())


@given(st.text(alphabet="ab.=[]{}\"'#\n ,1\\"))
def test_no_document_is_too_odd(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert all(1 <= line <= text.count("\n") + 1 for line in key_lines(text).values())
