"""One cell of a plan: the complete, resolved configuration of a measurement. Its digest names its record."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from typing_extensions import TypeAliasType

from methods.errors import did_you_mean


def _setting(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:  # lists one error for each type of the union
        raise ValueError("must be true or false, a finite number, a string, or a table of these") from None


SettingValue = TypeAliasType(
    "SettingValue",
    "Annotated[bool | int | float | str | dict[str, SettingValue] | None, WrapValidator(_setting)]",
)
"""Value of a setting. It is a table for a method that builds on another method with its own settings."""
DType = Literal["float32", "bfloat16", "float16"]

FirstToken = Literal["auto", "never", "always"]
"""Whether each sequence begins with the tokens that the tokenizer puts first. `auto` = only if they lower
the dense model's perplexity by more than a tenth (docs/protocols.md)."""

DENSE = "dense"
"""The method name of the cell that prunes nothing."""


class Spec(BaseModel):
    """Base of immutable models that reject unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_FAULTS = {
    "missing": "is missing",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be an array",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def first_fault(error: ValidationError, spec: type[Spec]) -> tuple[tuple[str | int, ...], str]:
    """Returns the path of a key of a TOML table that violates `spec`, and what is wrong with it.

    If there are several faults, an unknown key comes first, because a misspelled key is also a missing one.
    """
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    kind, path = fault["type"], fault["loc"]
    if kind == "extra_forbidden":
        return path, f"unknown key{did_you_mean(str(path[-1]), _keys_at(spec, path[:-1]))}"
    if kind == "value_error":
        return path, str(fault["ctx"]["error"])
    if kind in _FAULTS:
        return path, _FAULTS[kind]
    message = fault["msg"].replace("Input should", "must").replace("String should", "must")
    given = fault["input"]
    shown = {True: "true", False: "false"}[given] if isinstance(given, bool) else repr(given)
    return path, f"{message}, not {shown if len(shown) <= 60 else f'{shown[:57]}...'}"


def _keys_at(spec: type[Spec], path: tuple[str | int, ...]) -> list[str]:
    """Returns the keys of the model at `path` inside `spec`."""
    for part in path:
        if field := spec.model_fields.get(str(part)):
            spec = next(_specs_in(field.annotation), spec)
    return list(spec.model_fields)


def _specs_in(kind: Any) -> Iterator[type[Spec]]:
    if isinstance(kind, type) and issubclass(kind, Spec):
        yield kind
    for part in get_args(kind):
        yield from _specs_in(part)


class CalibrationSpec(Spec):
    """The calibration set that a cell prunes with."""

    source: str = "wiki-sample"
    """A built-in corpus, a hub corpus or a file."""
    n_samples: int = Field(128, ge=1)
    """Number of sequences."""
    seqlen: int = Field(2048, ge=1)
    """Tokens per sequence."""
    seed: int = Field(0, ge=0)
    """Seed that decides which windows of the corpus are drawn."""
    first_token: FirstToken = "auto"
    """Whether each sequence begins with the tokenizer's first token."""


class PerplexitySpec(Spec):
    """Perplexity on one corpus."""

    corpus: str
    """A built-in corpus, a hub corpus or a text file, of which the held-out part is used."""
    seqlen: int = Field(2048, ge=2)
    """Tokens per window."""
    max_tokens: int | None = Field(None, ge=2)
    """Evaluate at most this many tokens from the start, in complete windows; None = all."""
    first_token: FirstToken = "auto"
    """Whether each window begins with the tokenizer's first token."""

    @property
    def protocol(self) -> str:
        """Protocol name (docs/protocols.md), e.g. `wikitext2-token-s2048`; for `auto`, the first of two."""
        return self.protocols[0]

    @property
    def protocols(self) -> tuple[str, ...]:
        """Possible names of the protocol: one, or two for `auto`, of which the model decides."""
        kinds = {"never": ("token",), "always": ("bos",), "auto": ("token", "bos")}[self.first_token]
        return tuple(f"{self.corpus}-{kind}-s{self.seqlen}" for kind in kinds)


class TaskSpec(Spec):
    """One lm-eval task."""

    name: str
    """Name of an lm-eval task, or of one of prunebench's offline tasks."""
    num_fewshot: int | None = Field(None, ge=0)
    """Number of examples before each question; None = the default of the task."""
    limit: int | None = Field(None, ge=1)
    """Ask at most this many questions, from the start; None = all."""
    folder: str | None = None
    """A folder with the user's own task files, searched in addition to lm-eval's."""


class AnswersSpec(Spec):
    """Greedy answers to a set of prompts."""

    prompts: str = "built-in"
    """`built-in`, or a `.jsonl` file."""
    max_new_tokens: int = Field(48, ge=1)
    """Maximum length of an answer in tokens."""


class SpeedSpec(Spec):
    """Tokens per second while reading a prompt and while generating an answer."""

    prompt_tokens: int = Field(512, ge=2)
    """Length of the prompt, which is read in one pass (prefill)."""
    new_tokens: int = Field(32, ge=2)
    """Number of tokens to generate one by one (generation)."""


class AllocationSpec(Spec):
    """How a cell's sparsity is divided among the target modules."""

    name: str
    """Name of a registered allocation."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """All hyper-parameters of the allocation, including those at their defaults."""


class Cell(Spec):
    """Model x method x pattern x calibration x seed, with all settings resolved.

    Two cells with equal digests request the same measurements, so one record serves both.
    """

    model: str
    """A hub id, a local folder or a built-in name."""
    revision: str | None = None
    """The hub revision; None for local and built-in models."""
    method: str
    """Name of a registered method, or `dense`."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """All hyper-parameters of the method, including those at their defaults."""
    pattern: str | None = None
    """Sparsity pattern such as `0.5` or `2:4`; None if dense."""
    allocation: AllocationSpec | None = None
    """How the sparsity is divided among the target modules; None = the same pattern for all."""
    calibration: CalibrationSpec | None = None
    """The calibration set; None if neither the method nor the allocation needs one."""
    dtype: DType
    """Data type in which the model is loaded, pruned and evaluated."""
    perplexity: tuple[PerplexitySpec, ...] = ()
    """Texts to measure perplexity on, in order; the first one is used for ranking."""
    divergence: bool = False
    """Whether to compare the next-token distributions on those texts with the dense model's."""
    tasks: tuple[TaskSpec, ...] = ()
    """Zero-shot and few-shot tasks."""
    answers: AnswersSpec | None = None
    """Greedy answers to compare with the dense model's; None = none."""
    speed: SpeedSpec | None = None
    """Measurement of tokens per second; None = none."""
    checkpoint: str | None = None
    """The finished checkpoint to measure; None if the cell prunes the model itself, or is dense."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run."""
    threads: int | None = Field(None, ge=1)
    """Intra-op threads of torch, which affect the last bits of results; None = the default of the process."""
    title: str | None = None
    """Label for tables, in place of method and settings; not part of the digest."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of this cell."""
        content = self.model_dump(mode="json", exclude={"title"})
        # Fields added after the first release count only if they are set, so that older records are found.
        for joined in ("allocation", "divergence", "tasks", "answers", "speed", "checkpoint", "threads"):
            if not content[joined]:
                del content[joined]
        for spec in (content["calibration"] or {}, *content.get("perplexity", ())):
            if spec.get("first_token") == "auto":
                del spec["first_token"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def by_key(self) -> dict[str, Any]:
        """All values by dotted key such as `perplexity[0].corpus`; empty tables and arrays are values too."""
        return dict(_flat("", self.model_dump(mode="json", exclude={"title"})))

    @property
    def stem(self) -> str:
        """The file name of the cell's record without suffix: `<method>--<pattern>--<hash8>`."""
        pattern = (self.pattern or DENSE).replace(":", "of")
        return f"{_file_safe(self.method)}--{pattern}--{self.digest[:8]}"

    @property
    def folder(self) -> str:
        """Name of the folder for all records of the model: `<org__model>`."""
        # A model named `..` must not lead out of the tree, nor one named `./x` into a hidden folder.
        return _file_safe(self.model.strip("/").replace("/", "__")).lstrip(".") or "_"

    @property
    def is_dense(self) -> bool:
        """Whether the cell measures the dense model, with which other cells are compared."""
        return self.method == DENSE

    @property
    def prunes(self) -> bool:
        """Whether running the cell prunes the model; False for the dense model and finished checkpoints."""
        return not self.is_dense and self.checkpoint is None

    @property
    def compares(self) -> bool:
        """Whether the cell contains measurements that are compared with the dense model's."""
        return not self.is_dense and (self.divergence or bool(self.tasks) or self.answers is not None)

    @property
    def first_tokens(self) -> frozenset[FirstToken]:
        """The `first_token` settings of the perplexity texts and the calibration."""
        of_calibration = [] if self.calibration is None else [self.calibration.first_token]
        return frozenset([*(spec.first_token for spec in self.perplexity), *of_calibration])

    @property
    def label(self) -> str:
        """A short readable name: model, `variant` and pattern."""
        if self.is_dense:
            return f"{self.model} dense"
        return f"{self.model} {self.variant} {self.pattern}"

    @property
    def variant(self) -> str:
        """Label of a table row: the title if there is one, otherwise `pruner`."""
        return self.title or self.pruner

    @property
    def pruner(self) -> str:
        """The recipe, or the method with the settings that distinguish its variants."""
        if self.method == "recipe":
            allocation = [self.allocation.name] if self.allocation else []
            return " | ".join([*allocation, str(self.settings["recipe"])])
        shown = [
            str(self.settings[key])
            for key in ("initial", "group", "blocks", "granularity", "rebuild_ratio", "schedule")
            if self.settings.get(key) is not None
        ]
        shown += [key.replace("_", " ") for key in ("keep_reconstruction",) if self.settings.get(key) is True]
        method = f"{self.method} ({', '.join(shown)})" if shown else self.method
        return f"{method} + {self.allocation.name}" if self.allocation else method


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from _flat(f"{key}[{place}]", inner)
    else:
        yield key, value


LONGEST_NAME = 160
"""Maximum number of characters of a name within a file name. File systems allow 255 bytes, which must also
hold suffixes and tokens."""


def _file_safe(name: str) -> str:
    """Converts a name into a valid part of a file name; shortens a long name and appends a digest."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name) or "_"
    if len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


__all__ = [
    "DENSE",
    "AllocationSpec",
    "AnswersSpec",
    "CalibrationSpec",
    "Cell",
    "DType",
    "FirstToken",
    "PerplexitySpec",
    "SettingValue",
    "Spec",
    "SpeedSpec",
    "TaskSpec",
    "first_fault",
]
