"""One cell of a plan: the complete, resolved configuration whose digest names its record."""

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
    except ValidationError:  # of each type that it might have had
        raise ValueError("must be true or false, a finite number, a string, or a table of these") from None


SettingValue = TypeAliasType(
    "SettingValue",
    "Annotated[bool | int | float | str | dict[str, SettingValue] | None, WrapValidator(_setting)]",
)
"""A setting; a table where a method builds on another one with settings of its own."""
DType = Literal["float32", "bfloat16", "float16"]

FirstToken = Literal["auto", "never", "always"]
"""Whether each sequence begins with the tokens that the tokenizer puts first: `auto` = where the dense
model's perplexity is more than a tenth lower with them (docs/protocols.md)."""

DENSE = "dense"
"""The method name of the cell that prunes nothing."""


class Spec(BaseModel):
    """A frozen object that refuses keys it does not know."""

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
    """Where a table of a TOML file breaks `spec`, and how, in words.

    Of several faults an unknown key comes first, as a slip there makes a key missing too.
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
    """The keys of the spec at `path` inside `spec`."""
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
    """Which calibration set a cell prunes with."""

    source: str = "wiki-sample"
    """A built-in corpus, a hub corpus or a file."""
    n_samples: int = Field(128, ge=1)
    """How many sequences."""
    seqlen: int = Field(2048, ge=1)
    """Tokens in each."""
    seed: int = Field(0, ge=0)
    """Which windows are drawn."""
    first_token: FirstToken = "auto"
    """Whether each begins with the tokenizer's first token."""


class PerplexitySpec(Spec):
    """Perplexity on one corpus."""

    corpus: str
    """A built-in corpus, a hub corpus or a text file; its held-out part."""
    seqlen: int = Field(2048, ge=2)
    """Tokens in a window."""
    max_tokens: int | None = Field(None, ge=2)
    """At most this many tokens, from the start, in whole windows; None = all."""
    first_token: FirstToken = "auto"
    """Whether each window begins with the tokenizer's first token."""

    @property
    def protocol(self) -> str:
        """The protocol's name (docs/protocols.md), e.g. `wikitext2-token-s2048`; of `auto`, its first one."""
        return self.protocols[0]

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names that it may have: two of `auto`, between which the model decides."""
        kinds = {"never": ("token",), "always": ("bos",), "auto": ("token", "bos")}[self.first_token]
        return tuple(f"{self.corpus}-{kind}-s{self.seqlen}" for kind in kinds)


class TaskSpec(Spec):
    """One lm-eval task."""

    name: str
    """As lm-eval knows it, or one of prunebench's offline tasks."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples before each question; None = the task's own number."""
    limit: int | None = Field(None, ge=1)
    """At most this many questions, from the start; None = all."""
    folder: str | None = None
    """A folder with the user's own task files, searched besides lm-eval's."""


class AnswersSpec(Spec):
    """Greedy answers to a set of prompts."""

    prompts: str = "built-in"
    """`built-in`, or a `.jsonl` file."""
    max_new_tokens: int = Field(48, ge=1)
    """Where an answer that does not end is cut."""


class SpeedSpec(Spec):
    """Tokens per second, reading a prompt and writing an answer."""

    prompt_tokens: int = Field(512, ge=2)
    """In the prompt that is read in one go (prefill)."""
    new_tokens: int = Field(32, ge=2)
    """Written one after another (generation)."""


class AllocationSpec(Spec):
    """How a cell's sparsity is divided among the target modules."""

    name: str
    """A registered allocation."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """Every hyper-parameter of it, defaults written out."""


class Cell(Spec):
    """Model x method x pattern x calibration x seed, with everything resolved.

    Two cells with equal digests ask for the same numbers, so a record with that digest answers both.
    """

    model: str
    """A hub id, a local folder or a built-in name."""
    revision: str | None = None
    """The hub revision; None for local and built-in models."""
    method: str
    """A registered method, or `dense`."""
    settings: dict[str, SettingValue] = Field(default_factory=dict)
    """Every hyper-parameter of the method, defaults written out."""
    pattern: str | None = None
    """`0.5`, `2:4`; None when dense."""
    allocation: AllocationSpec | None = None
    """None = every target module is pruned to the pattern alike."""
    calibration: CalibrationSpec | None = None
    """None where neither the method nor the allocation needs one."""
    dtype: DType
    """In which the model is loaded, pruned and evaluated."""
    perplexity: tuple[PerplexitySpec, ...] = ()
    """On which texts, in order; the first one ranks."""
    divergence: bool = False
    """Whether the next-token distributions on those texts are held against the dense model's."""
    tasks: tuple[TaskSpec, ...] = ()
    """Zero-shot and few-shot tasks."""
    answers: AnswersSpec | None = None
    """Greedy answers, held against the dense model's."""
    speed: SpeedSpec | None = None
    """Tokens per second."""
    checkpoint: str | None = None
    """The finished checkpoint that was measured, where nothing was pruned here."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run."""
    threads: int | None = Field(None, ge=1)
    """Intra-op threads of torch, which decide the last bits; None = as many as the process has."""
    title: str | None = None
    """What tables call it in place of its method and settings; the digest leaves it out."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of this cell."""
        content = self.model_dump(mode="json", exclude={"title"})
        # What joined after the first records counts only where it is set, so that they are still found.
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
        """What it asks for by dotted key such as `perplexity[0].corpus`; empty tables as such."""
        return dict(_flat("", self.model_dump(mode="json", exclude={"title"})))

    @property
    def stem(self) -> str:
        """The file name of its record without the ending: `<method>--<pattern>--<hash8>`."""
        pattern = (self.pattern or DENSE).replace(":", "of")
        return f"{_file_safe(self.method)}--{pattern}--{self.digest[:8]}"

    @property
    def folder(self) -> str:
        """The folder of its model's records: `<org__model>`."""
        # A model called `..` must not lead out of the tree, nor one called `./x` into a hidden folder.
        return _file_safe(self.model.strip("/").replace("/", "__")).lstrip(".") or "_"

    @property
    def is_dense(self) -> bool:
        """Whether it is the model that others are compared with."""
        return self.method == DENSE

    @property
    def prunes(self) -> bool:
        """Whether something is pruned for it: not for the dense model, nor for a finished checkpoint."""
        return not self.is_dense and self.checkpoint is None

    @property
    def compares(self) -> bool:
        """Whether it is held against the dense model."""
        return not self.is_dense and (self.divergence or bool(self.tasks) or self.answers is not None)

    @property
    def first_tokens(self) -> frozenset[FirstToken]:
        """What its texts and its calibration say of the first token."""
        of_calibration = [] if self.calibration is None else [self.calibration.first_token]
        return frozenset([*(spec.first_token for spec in self.perplexity), *of_calibration])

    @property
    def label(self) -> str:
        """A short name for people: `llm-barber(wanda, 0.1) 0.5`."""
        if self.is_dense:
            return f"{self.model} dense"
        return f"{self.model} {self.variant} {self.pattern}"

    @property
    def variant(self) -> str:
        """As a table row shows it: its title, or else what prunes it."""
        return self.title or self.pruner

    @property
    def pruner(self) -> str:
        """The recipe, or the method with the settings that set variants apart."""
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
"""Characters of a name in a file's name: file systems take 255 bytes, and endings and tokens follow."""


def _file_safe(name: str) -> str:
    """The name as part of a file's name; one that is too long is cut, and a digest keeps it unique."""
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
