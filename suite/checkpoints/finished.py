"""What can be told of a finished checkpoint: what its `pruning.json` says, and what its zeros say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from methods.base import Placement
from methods.errors import InputError
from methods.masks.pattern import parse_pattern
from methods.placement.layer_loading import residing
from methods.structure.decoder import Block, DecoderLayer, read_decoder
from methods.structure.target import Target
from suite.cell import DENSE, AllocationSpec, SettingValue
from suite.checkpoints.writing.folder import SUMMARY
from suite.data.corpora import holds_tokens
from suite.results.records.record import CalibrationIdentity, ModelIdentity, ModuleReport
from suite.results.verification.pattern_counts import impossible_counts, read_pattern, span_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

COMMON_PATTERNS = ((1, 4), (2, 4), (4, 8))
"""N:M patterns that are looked for, the sparsest first."""
NEARLY = 0.01
"""Of all weights: by so much a checkpoint may have more zeros than its N:M pattern asks for."""
PRUNED_FROM = 0.01
"""Checkpoints with a smaller share of zeros are taken for dense: weights can be 0 without any pruning."""


class _Read(BaseModel):
    """A part of `pruning.json`; keys that are not needed here are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class SummaryModule(_Read):
    """What `pruning.json` says of one target module."""

    n_pruned: int = Field(ge=0)
    n_zeros: int = Field(ge=0)


class Summary(_Read):
    """What is needed of a `pruning.json` (`suite.checkpoints.writing.measured_prune` writes it)."""

    model: ModelIdentity
    method: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    settings: dict[str, SettingValue]
    pattern: str
    allocation: AllocationSpec | None = None
    calibration: CalibrationIdentity | None = None
    first_token: bool | None = None
    sparsity: float = Field(ge=0, le=1)
    prune_seconds: float = Field(ge=0)
    modules: dict[str, SummaryModule]

    @property
    def led(self) -> bool | None:
        """Whether the prune's sequences began with the tokenizer's first token; None where nobody knows."""
        used = self.calibration
        if self.first_token is not None or used is None or holds_tokens(used.source):
            return self.first_token
        return used.first_token

    @field_validator("method")
    @classmethod
    def _prunes(cls, value: str) -> str:
        if value == DENSE:
            raise ValueError("a dense model has no pruning.json")
        return value


@dataclass(frozen=True)
class CountedModule:
    """The zeros of one target module.

    Attributes:
        name: of the target.
        layer: index of its decoder layer.
        block: `attention` or `mlp`.
        shape: of its weight, `[out, in]`.
        n_zeros: weights that are exactly 0.
        dtype: of its weight, as it was loaded.
    """

    name: str
    layer: int
    block: str
    shape: tuple[int, int]
    n_zeros: int
    dtype: torch.dtype

    @property
    def n_weights(self) -> int:
        """All its weights."""
        return self.shape[0] * self.shape[1]

    @property
    def itemsize(self) -> int:
        """Bytes of one weight."""
        return self.dtype.itemsize


@dataclass(frozen=True)
class CountedZeros:
    """The zeros of a checkpoint's target modules.

    Attributes:
        modules: in the order of the model.
        pattern: the pattern they amount to: an N:M that every module keeps, else the sparsity; None where
            there are too few to call it pruned.
    """

    modules: tuple[CountedModule, ...]
    pattern: str | None

    @property
    def sparsity(self) -> float:
        """Share of zeros in all target modules."""
        return sum(m.n_zeros for m in self.modules) / sum(m.n_weights for m in self.modules)


def count_zeros(model: PreTrainedModel, placement: Placement = Placement()) -> CountedZeros:
    """Counts the zeros of a model's target modules.

    Args:
        model: the model.
        placement: where its decoder layers are.

    Raises:
        StructureError: its structure cannot be read.
    """
    modules: list[CountedModule] = []
    fitting = list(COMMON_PATTERNS)
    decoder = read_decoder(model)
    with torch.no_grad(), residing(model, decoder, placement) as residence:
        for layer in decoder.layers:
            with residence.visiting(layer, read_only=True):
                for block in layer.blocks:
                    for target in block.targets.values():
                        modules.append(_counted(layer, block, target))
                        fitting = [(n, m) for n, m in fitting if _keeps(target.weight, n, m)]
    counted = CountedZeros(tuple(modules), None)
    if counted.sparsity < PRUNED_FROM:
        return counted
    # At 90 % nearly every group has enough zeros for 4:8, which nobody pruned to.
    fitting = [(n, m) for n, m in fitting if abs(1 - n / m - counted.sparsity) < NEARLY]
    # A sparsity of 1 is none that anything can be pruned to.
    named = f"{fitting[0][0]}:{fitting[0][1]}" if fitting else f"{min(counted.sparsity, 0.9999):.4g}"
    return CountedZeros(counted.modules, named)


def read_summary(folder: Path) -> Summary | None:
    """What `prunebench prune` wrote beside a checkpoint; None where there is none, or another program's.

    Raises:
        InputError: the file is damaged, or was edited into something it never wrote.
    """
    path = folder / SUMMARY
    try:
        content = path.read_bytes()
        if _is_foreign(content):
            return None
        summary = Summary.model_validate_json(content)
        parse_pattern(summary.pattern)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return summary


def _is_foreign(content: bytes) -> bool:
    """Whether a `pruning.json` was written by another program: it is JSON, and has none of our marks."""
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return not (isinstance(found, dict) and {"schema_version", "mask_digest"} & found.keys())


def disagreements(summary: Summary, zeros: CountedZeros) -> list[str]:
    """How a checkpoint's weights, and what its `pruning.json` says, differ; a sentence each."""
    found = []
    said = {name: module.n_zeros for name, module in summary.modules.items()}
    counted = {module.name: module.n_zeros for module in zeros.modules}
    rounded = {module.name for module in zeros.modules if _may_round_to_zero(summary, module)}
    off = [
        name
        for name in sorted({*said, *counted})
        if not _fits(said.get(name), counted.get(name), rounded=name in rounded)
    ]
    if off:
        name = off[0]
        found.append(
            f"pruning.json does not fit the weights in {len(off)} modules: it says that {name} has "
            f"{said.get(name)} zeros, and there are {counted.get(name)}"
        )
    n_pruned = {name: module.n_pruned for name, module in summary.modules.items()}
    lacking = [name for name in counted if n_pruned.get(name, 0) > counted[name]]
    if lacking:
        name = lacking[0]
        found.append(
            f"pruning.json does not fit the weights in {len(lacking)} modules: it says that {n_pruned[name]} "
            f"weights of {name} were pruned, and only {counted[name]} are 0"
        )
    share = sum(n_pruned.values()) / max(1, sum(module.n_weights for module in zeros.modules))
    if abs(share - summary.sparsity) > 1e-6:
        found.append(
            f"pruning.json contradicts itself: sparsity {summary.sparsity:.6g}, by its modules {share:.6g}"
        )
    if n_pruned.keys() == counted.keys():
        found += _against_pattern(summary, zeros)
    return found


def _fits(said: int | None, counted: int | None, *, rounded: bool) -> bool:
    """Whether as many zeros were counted as there should be, or more where some weights were rounded to 0."""
    if rounded and said is not None and counted is not None:
        return said <= counted
    return said == counted


def _may_round_to_zero(summary: Summary, module: CountedModule) -> bool:
    """Whether weights that are not 0 may have been loaded as 0: float16 has nothing below 3e-8."""
    return module.dtype == torch.float16 and summary.model.dtype != "float16"


def _against_pattern(summary: Summary, zeros: CountedZeros) -> Iterator[str]:
    """Whether so many weights can have been pruned by the pattern.

    Of the zeros it can only be asked that they are no fewer: dense weights were 0 already, an earlier prune
    took more, or a reconstruction made some 0.
    """
    written = str(parse_pattern(summary.pattern))
    pattern = read_pattern(written)
    if pattern is None:
        yield f"pruning.json names the pattern {summary.pattern}, to which nothing can be pruned"
        return
    modules = [
        ModuleReport(
            module=module.name,
            layer=module.layer,
            block=module.block,
            shape=module.shape,
            n_weights=module.n_weights,
            n_pruned=summary.modules[module.name].n_pruned,
        )
        for module in zeros.modules
    ]
    span = span_of(summary.method, summary.settings, allocated=summary.allocation is not None)
    wrong = list(impossible_counts(modules, pattern, written, span))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        yield f"pruning.json names the pattern {summary.pattern}, and its counts do not fit: {wrong[0]}{more}"


def _counted(layer: DecoderLayer, block: Block, target: Target) -> CountedModule:
    weight = target.weight
    return CountedModule(
        name=target.name,
        layer=layer.index,
        block=str(block.kind),
        shape=target.shape,
        n_zeros=weight.numel() - int(weight.count_nonzero()),
        dtype=weight.dtype,
    )


def _keeps(weight: Tensor, n: int, m: int) -> bool:
    """Whether of every m consecutive input weights at most n are not 0."""
    if weight.shape[1] % m:
        return False
    groups = weight.reshape(weight.shape[0], -1, m)
    return bool((groups.count_nonzero(-1) <= n).all())


__all__ = ["CountedModule", "CountedZeros", "Summary", "count_zeros", "disagreements", "read_summary"]
