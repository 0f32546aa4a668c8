"""The prompts that come with the suite, and what a user's own file may hold."""

import json

import pytest

from methods.errors import InputError
from suite.data.prompts import BUILT_IN, Prompt, PromptSet, load_prompts


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes lines into x.jsonl of an empty folder; gives the name to load it by."""
    monkeypatch.chdir(tmp_path)

    def call(*lines: bytes | str | dict) -> str:
        rows = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
        content = b"\n".join(row if isinstance(row, bytes) else row.encode() for row in rows)
        (tmp_path / "x.jsonl").write_bytes(content)
        return "x.jsonl"

    return call


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load_prompts(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_built_in_prompts_are_many_short_and_of_eight_kinds():
    prompts = load_prompts(BUILT_IN).prompts
    assert len(prompts) >= 40
    assert len({prompt.kind for prompt in prompts}) == 8
    assert len({prompt.id for prompt in prompts}) == len({prompt.text for prompt in prompts}) == len(prompts)
    assert max(len(prompt.text.split()) for prompt in prompts) <= 60


def test_the_built_in_ids_say_their_kind():
    of_kind: dict[str, list[str]] = {}
    for prompt in load_prompts(BUILT_IN).prompts:
        of_kind.setdefault(prompt.kind, []).append(prompt.id)
    for kind, ids in of_kind.items():
        assert ids == [f"{kind}-{number}" for number in range(1, len(ids) + 1)]


def test_a_file_of_ones_own(write):
    name = write({"prompt": " Hello,"}, {"prompt": "Why?", "id": "why", "kind": "questions"})
    assert load_prompts(name) == PromptSet(
        "x.jsonl", (Prompt("1", "other", " Hello,"), Prompt("why", "questions", "Why?"))
    )


def test_blank_lines_are_skipped_and_counted(write):
    prompts = load_prompts(write("", {"prompt": "a"}, " \r", {"prompt": "b"}, "")).prompts
    assert [prompt.id for prompt in prompts] == ["2", "4"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_prompt(write):
    name = write(b'\xef\xbb\xbf{"prompt": "na\xc3\xafve"}\r', {"prompt": "b"})
    assert [prompt.text for prompt in load_prompts(name).prompts] == ["naïve", "b"]


BAD_LINES = {
    "not JSON": ("{prompt: 1}", "not JSON"),
    "far too deep": ("[" * 100_000, "not JSON"),
    "a list": ('["a"]', 'not an object with a "prompt"'),
    "no prompt": ({"id": "a"}, 'not an object with a "prompt"'),
    "a number": ({"prompt": 7}, 'its "prompt" is empty or not a string'),
    "blank": ({"prompt": " \n"}, 'its "prompt" is empty or not a string'),
    "id of no string": ({"prompt": "a", "id": 7}, 'its "id" is empty or not a string'),
    "empty kind": ({"prompt": "a", "kind": ""}, 'its "kind" is empty or not a string'),
    "unknown key": ({"prompt": "a", "text": "b"}, "unknown key 'text'"),
    "an id once more": ({"prompt": "a", "id": "first"}, "the id 'first' is already used in line 1"),
    "the id of a line": ({"prompt": "a", "id": "3"}, "the id '3' is already used in line 3"),
    "not UTF-8": (b'{"prompt": "\xff"}', "not UTF-8"),
    "half a surrogate pair": ('{"prompt": "\\ud83d"}', 'its "prompt" has half a surrogate pair'),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named_by_its_number(case, write):
    line, says = BAD_LINES[case]
    name = write({"prompt": "a", "id": "first"}, "", {"prompt": "b"}, line)
    assert refusal(name).startswith(f"prompt file 'x.jsonl', line 4: {says}")


def test_a_file_that_cannot_be_one_is_refused(write, tmp_path):
    assert refusal("none.jsonl") == "prompt file 'none.jsonl' cannot be read: No such file or directory"
    assert "'prompts.txt' is not a .jsonl file" in refusal("prompts.txt")
    assert "'built-in'" in refusal("builtin")
    assert refusal(write("", " ")) == "prompt file 'x.jsonl' contains no prompt"
    (tmp_path / "folder.jsonl").mkdir()
    assert "cannot be read: Is a directory" in refusal("folder.jsonl")


def test_the_digest_tells_sets_apart_and_nothing_else():
    prompt = Prompt("1", "other", "Why?")
    sets = [
        PromptSet("a", (prompt,)),
        PromptSet("a", (Prompt("2", "other", "Why?"),)),
        PromptSet("a", (Prompt("1", "facts", "Why?"),)),
        PromptSet("a", (Prompt("1", "other", "Who?"),)),
        PromptSet("a", (Prompt("1o", "ther", "Why?"),)),
        PromptSet("a", (prompt, Prompt("2", "other", "Who?"))),
        PromptSet("a", (Prompt("2", "other", "Who?"), prompt)),
    ]
    assert len({prompts.digest for prompts in sets}) == len(sets)
    assert PromptSet("b", (prompt,)).digest == sets[0].digest
