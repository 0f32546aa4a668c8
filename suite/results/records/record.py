"""The record of a cell: everything needed to show, compare, check and repeat its numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, computed_field, model_validator

from methods.layer_report import LayerReport
from suite.cell import Cell, Spec
from suite.results.records.items import AnswerSet, TaskOutcomes, WindowDivergence, WindowLosses

SCHEMA_VERSION = 8
"""Raised with every change of the fields below, and with every metric that joins (`ItemMetric.since`);
`suite.results.records.reading` migrates what is older."""


class CodeVersion(Spec):
    """Which code made the record."""

    prunebench: str
    """Version of the distribution."""
    method_version: int | None
    """The method's `version`; None when dense."""
    part_versions: dict[str, int] = Field(default_factory=dict)
    """The `version` of what the method builds on, by name: its initial method, an allocation."""
    source_digest: str
    """SHA-256 over the method and measurement sources that decide the numbers."""
    git_commit: str | None = None
    """Commit of the working tree the code ran from; None when installed from a wheel."""
    git_clean: bool | None = None
    """Whether that tree was clean; None without a tree."""


class ModelIdentity(Spec):
    """Which weights were measured."""

    name: str
    revision: str | None
    architecture: str
    n_parameters: int
    weight_digest: str
    """SHA-256 over the dense parameters' names, shapes, dtypes and bytes."""
    dtype: str
    folder_digest: str | None = None
    """SHA-256 over a local folder's files, which tells that it was changed without loading it; None for
    models that have a revision."""


class CalibrationIdentity(Spec):
    """Which tokens the method looked at."""

    source: str
    n_samples: int
    seqlen: int
    seed: int | None
    digest: str
    first_token: bool = False
    """Whether each sequence begins with the tokens that the tokenizer puts first."""


class PhaseCost(Spec):
    """What one phase took."""

    name: str
    """`load`, `calibrate`, `initial` (an initial prune that another cell did), `prune` (in it `statistics`,
    `solve`, `propagate`), `check`, `evaluate ...`."""
    seconds: float = Field(ge=0)
    peak_host_bytes: int | None = None
    """Highest resident memory of the process seen during the phase."""
    peak_device_bytes: int | None = None
    """Highest memory allocated on the accelerator; None without one."""
    energy_joules: float | None = None
    """Of all counters in `Environment.energy_meters`; None where the machine has none."""


class ReferenceSpeed(Spec):
    """What this machine can do, measured in the same run, so that times of two machines compare as ratios."""

    matmul_flops_per_second: float
    """Square matrix product at the cell's dtype."""
    forward_tokens_per_second: float
    """The dense model's own decoder forward at the batch size in use."""
    batch_size: int
    seqlen: int


class Metric(Spec):
    """One number."""

    name: str
    """`perplexity`, `sparsity`, `prune_seconds`, `peak_host_bytes`..."""
    protocol: str
    """What makes two values comparable; `` for costs of the machine."""
    value: float | None
    """None where it could not be had; `status` says why."""
    stderr: float | None = None
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end."""
    n: int | None = None
    """Items behind the value (windows for perplexity)."""
    direction: Literal["higher", "lower", "none"]
    """Which way is better."""
    status: str = "ok"
    """`ok`, or why there is no value."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def higher_is_better(self) -> bool | None:
        """`direction` as a truth value; None where neither way is better."""
        return None if self.direction == "none" else self.direction == "higher"

    @model_validator(mode="wrap")
    @classmethod
    def _check_derived(cls, data: Any, handler: ModelWrapValidatorHandler[Metric]) -> Metric:
        # `higher_is_better` is written for other programs, and so comes back as a key no field answers to.
        if not isinstance(data, dict) or "higher_is_better" not in data:
            return handler(data)
        stored = data["higher_is_better"]
        metric = handler({key: value for key, value in data.items() if key != "higher_is_better"})
        if stored is not metric.higher_is_better:
            raise ValueError(f"higher_is_better is {stored!r}, but direction is {metric.direction!r}")
        return metric

    @model_validator(mode="after")
    def _check_status(self) -> Metric:
        if self.value is None and self.status == "ok":
            raise ValueError(f"{self.name} has no value, but its status is 'ok'")
        return self


class ModuleReport(Spec):
    """What happened to one target module (`methods.base.LayerReport`, as stored)."""

    module: str
    layer: int
    block: str
    shape: tuple[int, ...]
    n_weights: int = Field(ge=1)
    n_pruned: int
    error_before: float | None = None
    error_after: float | None = None
    damping: float | None = None
    swaps: int | None = None
    n_tokens: int | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: LayerReport) -> ModuleReport:
        """What a method said of a module; both have the same fields, here the number of weights is stored."""
        return cls.model_validate(report, from_attributes=True)

    @property
    def sparsity(self) -> float:
        """Share of pruned weights."""
        return self.n_pruned / self.n_weights


class Environment(Spec):
    """The machine and the software."""

    python: str
    platform: str
    processor: str
    physical_cores: int | None
    host_memory_bytes: int
    device: str
    """`cpu` or the accelerator's name."""
    packages: dict[str, str]
    """Versions of the packages that decide numbers."""
    threads: int
    """Intra-op threads of torch: part of what fixes a mask to the bit."""
    native_bf16: bool
    """Whether the hardware multiplies bf16 natively."""
    energy_meters: tuple[str, ...] = ()
    """The counters of energy it has: `gpu`, `package-0`; none where it does not tell."""


class Failure(Spec):
    """Why a cell has no numbers."""

    phase: str
    error: str
    """Class of the exception."""
    message: str
    traceback: str


class SideFile(Spec):
    """The per-item data beside the record."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    """A plain file name in the record's own folder."""
    sha256: str
    rows: int = Field(ge=0)


class RecipePart(Spec):
    """One of the parts that a prune is made of, whether a recipe or a method by name asked for it."""

    role: Literal["allocation", "score", "refinement", "update", "second pass", "method"]
    """`second pass`: a method that starts from the mask of those before it; `method`: one without parts."""
    text: str
    """As a recipe has it, with the settings that are not the default: `refit(steps=20)`."""


class SharedPart(Spec):
    """Work that cells of one plan have in common, done once for all of them."""

    what: Literal["calibration", "initial mask", "dense reference"]
    name: str
    """The source, the initial method, or what the dense model was asked."""
    digest: str
    """Equal where it is the same work."""
    seconds: float = Field(ge=0)
    """What it took when it was done."""
    reused: bool
    """Whether another cell, or the preparation of the plan, had done it."""


class Record(Spec):
    """One finished or failed cell."""

    schema_version: int = SCHEMA_VERSION
    status: Literal["complete", "failed"]
    created: str
    """UTC, ISO 8601."""
    cell: Cell
    code: CodeVersion
    environment: Environment
    model: ModelIdentity | None = None
    """The dense model: what was pruned, or what a finished checkpoint was held against."""
    checkpoint: ModelIdentity | None = None
    """The finished checkpoint that was measured; None where the cell pruned."""
    calibration: CalibrationIdentity | None = None
    mask_digest: str | None = None
    initial_mask_digest: str | None = None
    """Of the masks a rebuilding method started from."""
    parts: tuple[RecipePart, ...] = ()
    """What pruned it, in order; empty where nothing was pruned, and in records before schema 8."""
    placement: Literal["resident", "onload"] = "resident"
    """Where the decoder layers were: all on the device, or one after another from their files."""
    shared: tuple[SharedPart, ...] = ()
    """Work that this cell had in common with others; the initial mask it starts from is the last of them."""
    phases: tuple[PhaseCost, ...] = ()
    reference_speed: ReferenceSpeed | None = None
    metrics: tuple[Metric, ...] = ()
    windows: tuple[WindowLosses, ...] = ()
    divergences: tuple[WindowDivergence, ...] = ()
    tasks: tuple[TaskOutcomes, ...] = ()
    answers: AnswerSet | None = None
    modules: tuple[ModuleReport, ...] = ()
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    side_file: SideFile | None = None
    body_digest: str = ""
    """SHA-256 of the canonical JSON of everything else; set by `sealed`."""

    @model_validator(mode="after")
    def _check_protocols(self) -> Record:
        protocols = [windows.protocol for windows in self.windows]
        if len(set(protocols)) < len(protocols):
            raise ValueError(f"windows of one protocol stand here twice: {protocols}")
        return self

    @model_validator(mode="after")
    def _check_failure(self) -> Record:
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError(f"status is {self.status!r}, but failure is {self.failure!r}")
        return self

    def __repr__(self) -> str:
        return f"<Record of {self.cell.label}, {self.status}, {len(self.metrics)} metrics>"

    def metric(self, name: str, protocol: str | None = None) -> Metric | None:
        """The metric of that name, and protocol if one is given; None if the record has none."""
        for metric in self.metrics:
            if metric.name == name and (protocol is None or metric.protocol == protocol):
                return metric
        return None

    def body(self) -> dict[str, Any]:
        """What the digest covers: the record as JSON values, without the digest."""
        return self.model_dump(mode="json", exclude={"body_digest"})

    def sealed(self) -> Record:
        """The same record with its digest filled in."""
        return self.model_copy(update={"body_digest": body_digest(self.body())})

    @property
    def is_intact(self) -> bool:
        """Whether the body still has the digest it was sealed with."""
        return self.body_digest == body_digest(self.body())


def body_digest(body: dict[str, Any]) -> str:
    """SHA-256 (hex) of canonical JSON: sorted keys, no spaces, no NaN."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


__all__ = [
    "SCHEMA_VERSION",
    "CalibrationIdentity",
    "CodeVersion",
    "Environment",
    "Failure",
    "Metric",
    "ModelIdentity",
    "ModuleReport",
    "PhaseCost",
    "RecipePart",
    "Record",
    "ReferenceSpeed",
    "SharedPart",
    "SideFile",
    "body_digest",
]
