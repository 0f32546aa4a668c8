"""The record of a cell: everything needed to show, compare, check and reproduce its numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, computed_field, model_validator

from methods.layer_report import LayerReport
from suite.cell import Cell, Spec
from suite.results.records.items import AnswerSet, TaskOutcomes, WindowDivergence, WindowLosses

SCHEMA_VERSION = 9
"""Incremented with every change of the fields below and every added metric (`ItemMetric.since`);
`suite.results.records.reading` migrates older records."""


class CodeVersion(Spec):
    """The code that made the record."""

    prunebench: str
    """Version of the distribution."""
    method_version: int | None
    """The `version` of the method; None if dense."""
    part_versions: dict[str, int] = Field(default_factory=dict)
    """The `version` of each part that the method builds on, by name: initial method, allocation."""
    source_digest: str
    """SHA-256 over the method and measurement sources that affect the numbers."""
    git_commit: str | None = None
    """Commit of the working tree that the code ran from; None if installed from a wheel."""
    git_clean: bool | None = None
    """Whether that working tree was clean; None without a working tree."""


class ModelIdentity(Spec):
    """Identifies the weights that were measured."""

    name: str
    revision: str | None
    architecture: str
    n_parameters: int
    weight_digest: str
    """SHA-256 over the dense parameters' names, shapes, dtypes and bytes."""
    dtype: str
    folder_digest: str | None = None
    """SHA-256 over the files of a local folder, to detect changes without loading the model; None for models
    that have a revision."""


class CalibrationIdentity(Spec):
    """Identifies the tokens that the method was calibrated on."""

    source: str
    n_samples: int
    seqlen: int
    seed: int | None
    digest: str
    first_token: bool = False
    """Whether each sequence begins with the tokens that the tokenizer puts first."""


class PhaseCost(Spec):
    """The cost of one phase."""

    name: str
    """`load`, `calibrate`, `initial` (an initial prune that another cell did), `prune` (which includes
    `statistics`, `solve`, `propagate`), `check`, `evaluate ...`."""
    seconds: float = Field(ge=0)
    peak_host_bytes: int | None = None
    """Highest resident memory of the process during the phase, in bytes."""
    peak_device_bytes: int | None = None
    """Highest memory allocated on the accelerator, in bytes; None without one."""
    energy_joules: float | None = None
    """Energy by all counters in `Environment.energy_meters`; None if the machine has no counter."""


class ReferenceSpeed(Spec):
    """Speed of the machine, measured in the same run, so that times of two machines compare as ratios."""

    matmul_flops_per_second: float
    """Speed of a square matrix product in the cell's dtype."""
    forward_tokens_per_second: float
    """Speed of the dense model's decoder forward at the batch size in use."""
    batch_size: int
    seqlen: int


class Metric(Spec):
    """One measured number."""

    name: str
    """`perplexity`, `sparsity`, `prune_seconds`, `peak_host_bytes`..."""
    protocol: str
    """Values are comparable only under the same protocol; `` for costs of the machine."""
    value: float | None
    """The value; None if there is none, for the reason in `status`."""
    stderr: float | None = None
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    n: int | None = None
    """Number of items behind the value (windows for perplexity)."""
    direction: Literal["higher", "lower", "none"]
    """Whether higher or lower values are better."""
    status: str = "ok"
    """`ok`, or the reason for a missing value."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def higher_is_better(self) -> bool | None:
        """`direction` as a bool; None if it is `none`."""
        return None if self.direction == "none" else self.direction == "higher"

    @model_validator(mode="wrap")
    @classmethod
    def _check_derived(cls, data: Any, handler: ModelWrapValidatorHandler[Metric]) -> Metric:
        # `higher_is_better` is written for other programs, so stored records have this key without a field.
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
    """Outcome of pruning one target module: the stored form of `methods.base.LayerReport`."""

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
        """Converts the report of a method, which has the same fields; `n_weights` becomes a stored field."""
        return cls.model_validate(report, from_attributes=True)

    @property
    def sparsity(self) -> float:
        """Share of the module's weights that were pruned."""
        return self.n_pruned / self.n_weights


class Environment(Spec):
    """The machine and the software that made a record."""

    python: str
    platform: str
    processor: str
    physical_cores: int | None
    host_memory_bytes: int
    device: str
    """`cpu`, or the name of the accelerator."""
    packages: dict[str, str]
    """Versions of the packages that may affect numbers."""
    threads: int
    """Number of intra-op threads of torch; bit-identical masks require the same number."""
    native_bf16: bool
    """Whether the hardware multiplies bf16 natively."""
    energy_meters: tuple[str, ...] = ()
    """Energy counters of the machine: `gpu`, `package-0`; empty if it has none."""


class Failure(Spec):
    """Why a cell has no numbers."""

    phase: str
    error: str
    """Class name of the exception."""
    message: str
    traceback: str


class SideFile(Spec):
    """The file with per-item data, stored beside the record."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    """A plain file name in the folder of the record."""
    sha256: str
    rows: int = Field(ge=0)


class RecipePart(Spec):
    """One part of a prune, requested by a recipe or by the name of a method."""

    role: Literal["allocation", "score", "refinement", "update", "second pass", "method"]
    """`second pass`: a method that starts from the mask of the parts before it; `method`: a method that does
    not consist of parts."""
    text: str
    """The part in recipe notation, with its non-default settings: `refit(steps=20)`."""


class SharedPart(Spec):
    """Work that cells of one plan share, done once for all of them."""

    what: Literal["calibration", "initial mask", "dense reference"]
    name: str
    """The calibration source, the initial method, or the evaluation of the dense model."""
    digest: str
    """Digest that identifies the work."""
    seconds: float = Field(ge=0)
    """Time that the work took when it was done."""
    reused: bool
    """Whether another cell, or the preparation of the plan, had already done the work."""


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
    """The dense model that was pruned, or with which a finished checkpoint was compared."""
    checkpoint: ModelIdentity | None = None
    """The finished checkpoint that was measured; None if the cell pruned the model, or is dense."""
    calibration: CalibrationIdentity | None = None
    mask_digest: str | None = None
    initial_mask_digest: str | None = None
    """Digest of the masks that a rebuilding method started from."""
    parts: tuple[RecipePart, ...] = ()
    """Parts of the prune, in order; empty if nothing was pruned, and in records before schema 8."""
    placement: Literal["resident", "onload"] = "resident"
    """`resident`: all decoder layers were on the device; `onload`: they were loaded one by one from files."""
    shared: tuple[SharedPart, ...] = ()
    """Work shared with other cells; the last initial mask is the one that the method starts from."""
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
    """SHA-256 of the canonical JSON of all other fields; set by `sealed`."""

    @model_validator(mode="after")
    def _check_protocols(self) -> Record:
        protocols = [windows.protocol for windows in self.windows]
        if len(set(protocols)) < len(protocols):
            raise ValueError(f"the windows of a protocol occur twice: {protocols}")
        return self

    @model_validator(mode="after")
    def _check_failure(self) -> Record:
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError(f"status is {self.status!r}, but failure is {self.failure!r}")
        return self

    def __repr__(self) -> str:
        return f"<Record of {self.cell.label}, {self.status}, {len(self.metrics)} metrics>"

    def metric(self, name: str, protocol: str | None = None) -> Metric | None:
        """Returns the metric of that name, and of `protocol` if given; None if the record has none."""
        for metric in self.metrics:
            if metric.name == name and (protocol is None or metric.protocol == protocol):
                return metric
        return None

    def body(self) -> dict[str, Any]:
        """Returns the part that the digest covers: the record as JSON values, without `body_digest`."""
        return self.model_dump(mode="json", exclude={"body_digest"})

    def sealed(self) -> Record:
        """Returns a copy of the record with its digest filled in."""
        return self.model_copy(update={"body_digest": body_digest(self.body())})

    @property
    def is_intact(self) -> bool:
        """Whether the body still matches the stored digest."""
        return self.body_digest == body_digest(self.body())


def body_digest(body: dict[str, Any]) -> str:
    """Returns the SHA-256 (hex) of the canonical JSON of a body: sorted keys, no spaces, no NaN."""
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
