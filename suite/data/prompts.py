"""Prompts for comparing the answers of models side by side: the built-in set, or the user's own."""

from __future__ import annotations

import codecs
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from methods.errors import InputError

BUILT_IN = "built-in"
"""The name of the set that comes with the suite."""

NO_KIND = "other"
"""The kind of a prompt that has no "kind" in its file."""

_KEYS = ("prompt", "id", "kind")


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: an identifier, unique in its set and stable: answers are paired by it.
        kind: the kind of task, such as `code`.
        text: the text for the model, before any chat template is applied.
    """

    id: str
    kind: str
    text: str


@dataclass(frozen=True)
class PromptSet:
    """A set of prompts that are answered together.

    Attributes:
        name: `built-in`, or the file as the user wrote it.
        prompts: the prompts in the order of the file; at least one.
    """

    name: str
    prompts: tuple[Prompt, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over ids, kinds and texts in order; the set's name is not included."""
        rows = [(prompt.id, prompt.kind, prompt.text) for prompt in self.prompts]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def load_prompts(name: str) -> PromptSet:
    """Loads the built-in prompts or a file of prompts.

    Args:
        name: `built-in`, or a `.jsonl` file with one object per line: the text under "prompt", and optionally
            a unique "id" (default: the line number) and a "kind" (default: `other`).

    Raises:
        InputError: there is no such file, or a line of it is not a prompt.
    """
    if name == BUILT_IN:
        return PromptSet(
            name, _parse(files("suite").joinpath("data", "builtin_prompts.jsonl").read_bytes(), name)
        )
    path = Path(name).expanduser()
    if path.suffix.lower() != ".jsonl":
        raise InputError(
            f"prompt file {name!r} is not a .jsonl file (the prompts of the suite are {BUILT_IN!r})"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"prompt file {name!r} cannot be read: {error.strerror or error}") from error
    if not (prompts := _parse(content, name)):
        raise InputError(f"prompt file {name!r} contains no prompt")
    return PromptSet(name, prompts)


def _parse(content: bytes, name: str) -> tuple[Prompt, ...]:
    lines: dict[str, int] = {}
    prompts = []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(line, number)
            if prompt.id in lines:
                raise InputError(f"the id {prompt.id!r} is already used in line {lines[prompt.id]}")
        except InputError as error:
            raise InputError(f"prompt file {name!r}, line {number}: {error}") from error
        lines[prompt.id] = number
        prompts.append(prompt)
    return tuple(prompts)


def _prompt(line: bytes, number: int) -> Prompt:
    """Parses one line of a prompt file; raises `InputError` if it is not a valid prompt."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from error
    if not isinstance(row, dict) or "prompt" not in row:
        raise InputError('not an object with a "prompt"')
    if unknown := sorted(set(row) - set(_KEYS)):
        raise InputError(f"unknown key {unknown[0]!r}: a prompt has {', '.join(_KEYS)}")
    for key, value in row.items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f'its "{key}" is empty or not a string')
        if any("\ud800" <= character <= "\udfff" for character in value):
            # JSON can encode one half of a surrogate pair, which no tokenizer accepts.
            raise InputError(f'its "{key}" has half a surrogate pair, which is not a character')
    return Prompt(row.get("id", str(number)), row.get("kind", NO_KIND), row["prompt"])


__all__ = ["BUILT_IN", "NO_KIND", "Prompt", "PromptSet", "load_prompts"]
