"""Suite files made at random: what is valid is read as it was meant, and what is not is found on its line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from suite.planning.suite_file import parse_suite

names = st.text("abcxyz-/. é\"\\#[]{}=,'", min_size=1, max_size=8)
numbers = st.integers(1, 4096)
setting = st.recursive(
    st.one_of(st.booleans(), st.integers(-9, 9), st.floats(-9, 9), names),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b-c", "d e"]), inner, max_size=2),
    max_leaves=3,
)


def tables(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with these keys; all but `name` and `corpus` may be left out."""
    required = {key: value for key, value in fields.items() if key in ("name", "corpus")}
    optional = {key: value for key, value in fields.items() if key not in required}
    return st.fixed_dictionaries(required, optional=optional)


patterns = st.lists(st.one_of(st.sampled_from(["0.5", "2:4"]), st.floats(0.1, 0.9)), min_size=1, max_size=2)
calibration = tables(
    source=names, n_samples=numbers, seqlen=numbers, seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3)
)
methods = tables(name=names, settings=st.dictionaries(names, setting, max_size=2), patterns=patterns)


def some(table: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """One or two of them."""
    return st.lists(table, min_size=1, max_size=2)


suites = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,5}", fullmatch=True),
        "models": some(tables(name=names, revision=names, trust_remote_code=st.booleans())),
        "perplexity": some(tables(corpus=names, max_tokens=st.integers(2048, 9999))),
    },
    optional={
        "description": names,
        "patterns": patterns,
        "dtype": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
        "threads": st.integers(1, 64),
        "divergence": st.booleans(),
        "calibration": some(calibration),
        "methods": some(methods),
        "tasks": some(tables(name=names, num_fewshot=st.integers(0, 5), limit=numbers)),
        "answers": tables(prompts=names, max_new_tokens=numbers),
        "speed": tables(prompt_tokens=st.integers(2, 99), new_tokens=st.integers(2, 99)),
    },
)


def spelled(value: Any) -> str:
    """A value on one line. JSON's strings, numbers and truth values are TOML's too."""
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{key_spelled(key)} = {spelled(inner)}" for key, inner in value.items()) + " }"
        )
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    return json.dumps(value)


def key_spelled(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)


def written(suite: dict[str, Any], inline: bool) -> str:
    """The suite as a file: tables under headers, or each on a line of its own in its key's array."""

    def is_table(value: Any) -> bool:
        return isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(v, dict) for v in value)
        )

    lines = [f"{key} = {spelled(value)}" for key, value in suite.items() if inline or not is_table(value)]
    for key, value in suite.items():
        if is_table(value) and not inline:
            for table in value if isinstance(value, list) else [value]:
                lines += ["", f"[[{key}]] # = [" if isinstance(value, list) else f"[ {key} ]"]
                lines += [f"{key_spelled(inner)} = {spelled(v)}" for inner, v in table.items()]
    return "\n".join(lines)


def says(read: Any, meant: Any) -> bool:
    """Whether what was read has everything that was meant."""
    if isinstance(meant, dict):
        return all(key in read and says(read[key], value) for key, value in meant.items())
    if isinstance(meant, list):
        return len(read) == len(meant) and all(map(says, read, meant))
    return bool(read == meant or read == str(meant))  # a pattern is a string, whichever way it is written


@settings(max_examples=200)
@given(suites, st.booleans())
def test_a_valid_suite_is_read_as_it_was_meant(suite: dict[str, Any], inline: bool) -> None:
    text = written(suite, inline)
    config = parse_suite(text.encode(), file="x.toml")
    assert says(config.model_dump(), suite)
    lines = text.split("\n")
    for path, line in config.places.lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in lines[line - 1] or json.dumps(path[-1]) in lines[line - 1]
    assert {path[0] for path in config.places.lines} == set(suite), "every key has a line"


@settings(max_examples=300)
@given(suites, st.booleans(), st.data())
def test_one_wrong_value_is_found_on_its_line(
    suite: dict[str, Any], inline: bool, data: st.DataObject
) -> None:
    """No key takes an array of arrays; its place is known because it is there once."""
    table: dict[str, Any] = suite
    if data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["models", "perplexity"]))
        table = data.draw(st.sampled_from(suite[key]))
    kind = data.draw(st.sampled_from(["value", "key"]))
    key = data.draw(st.sampled_from(sorted(table))) if kind == "value" else "wrong-key"
    table[key] = [["wrong-value"]]
    text = written(suite, inline)
    with pytest.raises(InputError) as caught:
        parse_suite(text.encode(), file="x.toml")
    message = str(caught.value)
    assert "\n" not in message
    at = re.match(r"x\.toml:(\d+): ", message)
    assert at is not None, message
    line = next(n for n, found in enumerate(text.split("\n"), 1) if f"wrong-{kind}" in found)
    assert int(at[1]) == line, message
    assert key in message
