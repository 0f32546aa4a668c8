"""The format of a suite file, and what is wrong with one that breaks it: file, line, key."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, field_validator
from pydantic import ValidationInfo as Info

from methods.errors import InputError
from methods.registry import did_you_mean
from suite.cell import FirstToken, SettingValue, Spec
from suite.planning.toml_lines import KeyPath, key_lines, nearest_line

MAX_SEQLEN = 2**17
"""Longer windows than any model here could be run on are a slip of the finger."""


def _pattern_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('must be a sparsity such as 0.5 or a pattern such as "2:4"')
    return str(value)


def _setting(value: Any) -> SettingValue:
    if isinstance(value, dict):
        return {key: _setting(inner) for key, inner in value.items()}
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not isfinite(value)):
        raise ValueError("must be true or false, a finite number, a string, or a table of these")
    return value


Name = Annotated[str, Field(min_length=1)]
Patterns = Annotated[tuple[Annotated[str, BeforeValidator(_pattern_text)], ...], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Setting = Annotated[Any, AfterValidator(_setting)]


class Table(Spec, strict=True):
    """A table of a suite file: no value is converted into another type."""


class ModelTable(Table):
    """One entry of `models`: a name alone, or a table."""

    name: Name
    """A hub id, a local folder or a built-in name."""
    revision: Name | None = None
    """The hub revision."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run."""


class CalibrationTable(Table):
    """`[calibration]`, or one of several `[[calibration]]`: what methods look at."""

    source: Name = "wiki-sample"
    """A built-in corpus, a hub corpus or a file."""
    n_samples: int = Field(128, ge=1, le=2**20)
    """How many sequences."""
    seqlen: int = Field(2048, ge=1, le=MAX_SEQLEN)
    """Tokens in each."""
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    """A cell for each."""
    first_token: FirstToken = "auto"
    """Whether each sequence begins with the tokenizer's first token."""


class AllocationTable(Table):
    """`allocation` of a method: a name alone, or a table."""

    name: Name
    """A registered allocation."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """Hyper-parameters in place of its defaults."""


class MethodTable(Table):
    """`[[methods]]`: one variant of a method."""

    name: Name
    """A registered method."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """Hyper-parameters in place of the method's defaults."""
    patterns: Patterns | None = None
    """In place of the suite's."""
    allocation: AllocationTable | None = None
    """How the sparsity is divided among the target modules; without one they all get the same."""

    @field_validator("allocation", mode="before")
    @classmethod
    def _name_is_table(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class PerplexityTable(Table):
    """`[[perplexity]]`: perplexity on one corpus."""

    corpus: Name
    """A built-in corpus, a hub corpus or a text file; its held-out part."""
    seqlen: int = Field(2048, ge=2, le=MAX_SEQLEN)
    """Tokens in a window."""
    max_tokens: int | None = Field(None, le=2**40)
    """At most this many tokens, from the start, in whole windows."""
    first_token: FirstToken = "auto"
    """Whether each window begins with the tokenizer's first token."""

    @field_validator("max_tokens")
    @classmethod
    def _one_window(cls, value: int | None, info: Info) -> int | None:
        if value is not None and value < info.data.get("seqlen", 0):
            raise ValueError(f"{value} tokens do not fill one window of {info.data['seqlen']}")
        return value


class TaskTable(Table):
    """`[[tasks]]`: an lm-eval task, or a set of them (`offline`, `paper7`)."""

    name: Name
    """A task, a group, or a set."""
    num_fewshot: int | None = Field(None, ge=0, le=1000)
    """Examples before each question; without it the task's own number."""
    limit: int | None = Field(None, ge=1)
    """At most this many questions, from the start."""
    folder: Name | None = None
    """A folder with task files of your own."""


class AnswersTable(Table):
    """`[answers]`: greedy answers to prompts."""

    prompts: Name = "built-in"
    """`built-in`, or a `.jsonl` file."""
    max_new_tokens: int = Field(48, ge=1, le=4096)
    """Where an answer that does not end is cut."""


class SpeedTable(Table):
    """`[speed]`: tokens per second."""

    prompt_tokens: int = Field(512, ge=2, le=MAX_SEQLEN)
    """Read in one go."""
    new_tokens: int = Field(32, ge=2, le=4096)
    """Written one after another."""


@dataclass(frozen=True)
class Places:
    """Where the keys of a suite file stand.

    Attributes:
        file: its name, as the user gave it.
        lines: the line of each key.
    """

    file: str = "suite"
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def written(self, path: KeyPath) -> KeyPath:
        """`path` as the file has it: a single `[calibration]` is read as the only one of several."""
        if path[:2] == ("calibration", 0) and ("calibration", 0) not in self.lines:
            return ("calibration", *path[2:])
        return path

    def error(self, path: KeyPath, message: object) -> InputError:
        """An error about the key at `path`, e.g. `quickstart.toml:12: methods[2].name: ...`."""
        path = self.written(path)
        line = nearest_line(self.lines, path)
        where = self.file if line is None else f"{self.file}:{line}"
        return InputError(f"{where}: {_dotted(path)}: {message}" if path else f"{where}: {message}")


class SuiteConfig(Table):
    """A suite file as it was read. `suite.planning.suite_cells.plan` makes cells of it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Also the name of its results folder."""
    description: str = ""
    """What question it answers."""
    models: tuple[ModelTable, ...] = Field(min_length=1)
    """What is pruned."""
    patterns: Patterns | None = None
    """What every method prunes to that names no patterns of its own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 where the hardware multiplies it natively, else float32."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Threads of every cell, so that two machines give the same numbers; without it, as many as there are."""
    calibration: tuple[CalibrationTable, ...] = Field((CalibrationTable(),), min_length=1)
    """What methods look at; a cell for each."""
    methods: tuple[MethodTable, ...] = Field((), min_length=1)
    """What is compared; without any, the dense models alone are measured."""
    perplexity: tuple[PerplexityTable, ...] = Field(min_length=1)
    """On which texts perplexity is measured; the first one ranks."""
    divergence: bool = False
    """Whether the next-token distributions on these texts are held against the dense model's."""
    tasks: tuple[TaskTable, ...] = ()
    """What the models are asked; flips are counted against the dense model."""
    answers: AnswersTable | None = None
    """Greedy answers, side by side with the dense model's."""
    speed: SpeedTable | None = None
    """Tokens per second."""

    _places: Places = PrivateAttr(default_factory=Places)

    @field_validator("calibration", mode="before")
    @classmethod
    def _one_is_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @property
    def places(self) -> Places:
        """Where its keys stand, for errors found later."""
        return self._places

    @field_validator("models", mode="before")
    @classmethod
    def _names_are_tables(cls, value: Any) -> Any:
        return (
            tuple({"name": v} if isinstance(v, str) else v for v in value)
            if isinstance(value, tuple)
            else value
        )


_TABLES: dict[str, type[Table]] = {
    "models": ModelTable,
    "calibration": CalibrationTable,
    "methods": MethodTable,
    "perplexity": PerplexityTable,
    "tasks": TaskTable,
    "answers": AnswersTable,
    "speed": SpeedTable,
}
_WORDS = {
    "missing": "is missing",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be an array",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def parse_suite(data: bytes, *, file: str) -> SuiteConfig:
    """Reads a suite file's bytes. Whether its methods, models and corpora exist is for `suite_cells.plan`.

    Args:
        data: TOML in UTF-8.
        file: what to call it in errors.

    Raises:
        InputError: not TOML, an unknown or missing key, a value of the wrong type or range: file, line, key.
    """
    try:
        text = data.decode("utf-8-sig")
        raw = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, file) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not TOML that can be read: {' '.join(str(error).split())}") from error
    places = Places(file, key_lines(text))
    try:
        config = SuiteConfig.model_validate(_frozen(raw))
    except ValidationError as error:
        raise _first_error(error, places) from error
    config._places = places
    return config


def _first_error(error: ValidationError, places: Places) -> InputError:
    """The most telling of pydantic's errors: unknown keys first, as a slip there makes a key missing too."""
    found = error.errors(include_url=False)
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path = places.written(first["loc"])
    if first["type"] == "extra_forbidden":
        table = _TABLES[str(path[0])] if len(path) > 1 else SuiteConfig
        if "allocation" in path[:-1]:
            table = AllocationTable
        return places.error(path, f"unknown key{did_you_mean(str(path[-1]), list(table.model_fields))}")
    if first["type"] == "value_error":
        return places.error(path, first["ctx"]["error"])
    if first["type"] in _WORDS:
        return places.error(path, _WORDS[first["type"]])
    message = first["msg"].replace("Input should", "must").replace("String should", "must")
    return places.error(path, f"{message}, not {_shown(first['input'])}")


def _syntax_error(message: str, text: str, file: str) -> InputError:
    # Only Python 3.14's TOMLDecodeError has the position as a number.
    at = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    line = int(at[2]) if at else text.count("\n") + 1
    reason = f"{at[1]} (column {at[3]})" if at else message
    return InputError(f"{file}:{line}: is not TOML: {' '.join(reason.split())}")


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list) else value


def _dotted(path: KeyPath) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in path).removeprefix(
        "."
    )


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name) else repr(name)


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


__all__ = [
    "MAX_SEQLEN",
    "AnswersTable",
    "CalibrationTable",
    "MethodTable",
    "ModelTable",
    "PerplexityTable",
    "Places",
    "SpeedTable",
    "SuiteConfig",
    "TaskTable",
    "parse_suite",
]
