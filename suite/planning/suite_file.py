"""The format of a suite file; errors name file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator

from methods.errors import InputError
from suite.cell import (
    AllocationSpec,
    AnswersSpec,
    FirstToken,
    PerplexitySpec,
    SettingValue,
    Spec,
    SpeedSpec,
    TaskSpec,
    first_fault,
)
from suite.planning.toml_lines import KeyPath, key_lines, nearest_line, paths_of

MOST = {
    "threads": 1024,
    "n_samples": 2**20,
    "seqlen": 2**17,
    "seeds": 2**32 - 1,
    "max_tokens": 2**40,
    "num_fewshot": 1000,
    "max_new_tokens": 4096,
    "prompt_tokens": 2**17,
    "new_tokens": 4096,
}
"""Maximum values of these keys of a suite; larger numbers are typing errors."""


def _pattern_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('must be a sparsity such as 0.5 or a pattern such as "2:4"')
    return str(value)


def _name_as_table(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1)]
Patterns = Annotated[tuple[Annotated[str, BeforeValidator(_pattern_text)], ...], Field(min_length=1)]


class ModelTable(Spec):
    """One entry of `models`: a name, or a table."""

    name: Name
    """A hub id, a local folder or a built-in name."""
    revision: Name | None = None
    """The hub revision."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run."""


class CalibrationTable(Spec):
    """`[calibration]`, or one of several `[[calibration]]`: one `CalibrationSpec` per seed."""

    source: str = "wiki-sample"
    """A built-in corpus, a hub corpus or a file."""
    n_samples: int = Field(128, ge=1)
    """Number of sequences."""
    seqlen: int = Field(2048, ge=1)
    """Number of tokens per sequence."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    """Seeds for drawing the sequences; there is one cell per seed."""
    first_token: FirstToken = "auto"
    """Whether each sequence begins with the tokenizer's first token."""


class MethodTable(Spec):
    """`[[methods]]`: one variant of a method, or a recipe."""

    name: Name | None = None
    """A registered method."""
    recipe: Name | None = None
    """A recipe in place of a name, such as `alphapruning | wanda | swaps | refit`."""
    label: Annotated[str, Field(pattern=r"^\S(.{0,78}\S)?$")] | None = None
    """Label in tables, in place of the recipe or the method with its settings."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """Hyper-parameters that replace the method's defaults."""
    patterns: Patterns | None = None
    """Patterns in place of the suite's."""
    allocation: Annotated[AllocationSpec, BeforeValidator(_name_as_table)] | None = None
    """The allocation that divides the sparsity among the target modules: a name, or a table whose settings
    replace the defaults; without it, all modules get the same sparsity."""


@dataclass(frozen=True)
class Places:
    """The lines of the keys of a suite file.

    Attributes:
        file: the file's name as the user gave it.
        lines: the line of each key.
    """

    file: str = "suite"
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Returns the place of the key at `path`, e.g. `quickstart.toml:12: methods[2].name`."""
        if path[:2] == ("calibration", 0) and ("calibration", 0) not in self.lines:
            path = ("calibration", *path[2:])  # a single `[calibration]` is read as the only one of several
        line = nearest_line(self.lines, path)
        file = self.file if line is None else f"{self.file}:{line}"
        return f"{file}: {_dotted(path)}" if path else file

    def error(self, path: KeyPath, message: object) -> InputError:
        """Returns an error about the key at `path`."""
        return InputError(f"{self.where(path)}: {message}")

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Adds the place of the key at `path` to every `InputError` that the body raises."""
        try:
            yield
        except InputError as error:
            raise self.error(path, error) from error


class SuiteConfig(Spec):
    """The content of a suite file. `suite.planning.suite_cells.plan` turns it into cells."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The suite's name, also used for its results folder."""
    description: str = ""
    """The question that the suite answers."""
    models: tuple[Annotated[ModelTable, BeforeValidator(_name_as_table)], ...] = Field(min_length=1)
    """The models to prune."""
    patterns: Patterns | None = None
    """The patterns for every method without patterns of its own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 if the hardware multiplies it natively, else float32."""
    threads: int | None = Field(None, ge=1)
    """Number of threads of every cell, so that two machines get equal numbers; default: all available."""
    calibration: tuple[CalibrationTable, ...] = Field((CalibrationTable(),), min_length=1)
    """The calibration sets; there is one cell per set."""
    methods: tuple[MethodTable, ...] = Field((), min_length=1)
    """The methods to compare; without any, only the dense models are measured."""
    perplexity: tuple[PerplexitySpec, ...] = Field(min_length=1)
    """The texts on which perplexity is measured; the first one determines the ranking."""
    divergence: bool = False
    """Whether the next-token distributions on these texts are compared with the dense model's."""
    tasks: tuple[TaskSpec, ...] = ()
    """The tasks or sets of tasks to run; flips are counted relative to the dense model."""
    answers: AnswersSpec | None = None
    """Greedy answers to prompts, shown side by side with the dense model's."""
    speed: SpeedSpec | None = None
    """Measurement of tokens per second."""

    _places: Places = PrivateAttr(default_factory=Places)

    @field_validator("calibration", mode="before")
    @classmethod
    def _one_is_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @property
    def places(self) -> Places:
        """The lines of its keys, for errors found later."""
        return self._places


def parse_suite(data: bytes, *, file: str) -> SuiteConfig:
    """Parses a suite file. Whether its methods, models and corpora exist is checked by `suite_cells.plan`.

    Args:
        data: the file's bytes, TOML in UTF-8.
        file: the file's name for error messages.

    Raises:
        InputError: it is not TOML, a key is unknown or missing, or a value has the wrong type or range; the
            message names file, line and key.
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
        raise InputError(f"{file}: is not readable TOML: {' '.join(str(error).split())}") from error
    places = Places(file, key_lines(text))
    try:
        config = SuiteConfig.model_validate(_frozen(raw), strict=True)  # no value becomes another type
    except ValidationError as error:
        raise places.error(*first_fault(error, SuiteConfig)) from error
    _check_sizes(raw, places)
    config._places = places
    return config


def _check_sizes(raw: dict[str, Any], places: Places) -> None:
    for path, value in paths_of(raw):
        key = path[-1] if isinstance(path[-1], str) else path[-2]
        if path[0] != "methods" and isinstance(value, int) and value > MOST.get(str(key), value):
            raise places.error(path, f"must be less than or equal to {MOST[str(key)]}, not {value}")


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


__all__ = ["CalibrationTable", "MethodTable", "ModelTable", "Places", "SuiteConfig", "parse_suite"]
