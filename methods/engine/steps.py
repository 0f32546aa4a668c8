"""The interfaces of the steps of a one-shot prune, and the objects that they take and return.

A recipe chooses a mask by a score, improves it by refinements, and recomputes the surviving weights by an
update. Each step is a frozen dataclass whose fields are its settings. It works on one target at a time (a
`BlockRefinement` on one block) and has no state: hooks, devices and the loop over the layers are in
`methods.engine.layerwise`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from torch import Tensor

from methods.base import PhaseClock
from methods.engine.hidden_states import LayerStream
from methods.engine.statistics import GramMatrix, InputNorms, InputStatistics, StatisticKind
from methods.layer_report import LayerReport
from methods.masks.pattern import UniformPattern
from methods.structure.decoder import Block, DecoderLayer
from methods.structure.target import Target

T = TypeVar("T")

UNREACHED = "no token was routed to it when its mask was to be improved: the initial mask is kept"


@dataclass(frozen=True)
class Problem:
    """One target to prune, as it is passed to the steps of a recipe.

    Attributes:
        target: the target.
        block: `attention` or `mlp`.
        weight: its dense weight, fp32 `[out, in]`, contiguous; read-only.
        pattern: what to remove from it.
        inputs: the statistics of its inputs that the recipe's steps ask for.
        n_tokens: number of calibration tokens that it read; 0 for an expert that no token was routed to,
            whose statistics are those of every input active once; None if no statistics were gathered.
        n_samples: number of calibration sequences.
        given_gradients: the value of `regional_gradients`; None unless a step of the recipe reads them.
    """

    target: Target
    block: str
    weight: Tensor
    pattern: UniformPattern
    inputs: InputStatistics
    n_tokens: int | None
    n_samples: int
    given_gradients: Tensor | None = None

    @property
    def name(self) -> str:
        """The target's name."""
        return self.target.name

    @property
    def squared_norms(self) -> Tensor:
        """sum_t X_tj^2 of each input over all tokens, fp32 `[in]`: the diagonal of the Gram matrix."""
        return self.inputs[InputNorms].value

    @property
    def gram(self) -> Tensor:
        """X^T X over all tokens (a sum, not a mean), fp32 `[in, in]`; shared between targets, read-only."""
        return self.inputs[GramMatrix].value

    @property
    def regional_gradients(self) -> Tensor:
        """Mean over samples of the squared gradient of ||f(X)||_2, fp32 `[out, in]`; f is the dense layer."""
        assert self.given_gradients is not None, "the step does not declare that it reads them"
        return self.given_gradients

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """Returns the result of `make`, computed once for all targets that read the same inputs.

        Args:
            key: identifies the result, including every setting that it depends on.
            make: computes the result from the statistics alone.
        """
        return self.inputs.shared(key, make)


@dataclass(frozen=True)
class Solution:
    """The mask and the weights of one target after the steps so far.

    Attributes:
        keep: bool `[out, in]`.
        weight: fp32 `[out, in]`, zero where pruned; None = survivors have their dense values.
        damping: the damping added to the Hessian's diagonal, relative to its mean.
        swaps: number of pairs swapped against an initial mask.
        standing: if the mask was found in an earlier pass, the report of the method that found it. Its number
            of tokens and its warnings are then reported in place of those of this pass.
        warnings: warnings for the report.
        weight_warnings: warnings about the new weights; dropped together with the weights.
    """

    keep: Tensor
    weight: Tensor | None = None
    damping: float | None = None
    swaps: int | None = None
    standing: LayerReport | None = None
    warnings: tuple[str, ...] = ()
    weight_warnings: tuple[str, ...] = ()

    @property
    def without_weight(self) -> Solution:
        """The same mask without new weights: survivors have their dense values."""
        return replace(self, weight=None, weight_warnings=()) if self.weight is not None else self

    def refined(self, keep: Tensor, target: Target, *warnings: str) -> Solution:
        """Returns the solution with a better mask.

        Survivors have their dense values, swaps are counted, and `standing` is dropped.
        """
        before = self.warnings
        if self.standing is not None:
            before = (*warnings_of_judgement(self.standing, target), *before)
        return replace(
            self,
            keep=keep,
            weight=None,
            weight_warnings=(),
            swaps=(self.swaps or 0) + int((keep & ~self.keep).sum()),
            standing=None,
            warnings=(*before, *warnings),
        )


class Step(ABC):
    """One step of a recipe.

    Attributes:
        part: its role in a recipe: `score`, `refinement` or `update`.
        name: name that users type; lower case, words joined by hyphens.
        version: version to increase with every change of its results; records of older versions are stale.
        statistics: the statistics of a target's inputs that it reads. A recipe gathers each kind once for all
            its steps.
        reads_regional_gradients: whether it reads `Problem.regional_gradients`, which costs a forward and a
            backward pass of each dense layer.
        solver_bytes: working memory (factors, copies in float64) in bytes per element of the target's Gram
            matrix `[in, in]`, in addition to the matrix. The memory estimate uses it to refuse a step that
            does not fit before anything runs.
    """

    part: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int]
    statistics: ClassVar[tuple[StatisticKind, ...]] = ()
    reads_regional_gradients: ClassVar[bool] = False
    solver_bytes: ClassVar[int] = 0

    @property
    def reads_inputs(self) -> bool:
        """Whether it reads calibration data."""
        return bool(self.statistics) or self.reads_regional_gradients


class MaskStep(Step):
    """A step that chooses a mask or changes one."""

    @abstractmethod
    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """Returns rows x columns of the groups that it compares: see `PruningMethod.comparison_group`.

        In each group a refinement keeps as many weights as before.

        Raises:
            InputError: it does not support `pattern`.
        """


class Refinement(MaskStep):
    """Improves the mask of one target; survivors get back their dense values."""

    part = "refinement"

    @abstractmethod
    def refine(self, problem: Problem, found: Solution) -> Solution:
        """Returns the solution with a better mask; see `Solution.refined`."""


@dataclass(frozen=True)
class PrunedBlock:
    """One block of a layer with the masks found so far, as it is passed to a `BlockRefinement`.

    Attributes:
        stream: the stream at the input of `layer`; earlier blocks of the layer have their final weights.
        layer: the decoder layer.
        block: one of its blocks, whose weights are pruned by `keep`.
        patterns: target name -> its pattern.
        dense: target name -> dense weight `[out, in]`.
        full: target name -> the values that weights have if they survive: the dense ones, or those that an
            initial method computed.
        keep: target name -> bool `[out, in]`.
        clock: measures the phases `statistics` and `solve`.
    """

    stream: LayerStream
    layer: DecoderLayer
    block: Block
    patterns: Mapping[str, UniformPattern]
    dense: Mapping[str, Tensor]
    full: Mapping[str, Tensor]
    keep: Mapping[str, Tensor]
    clock: PhaseClock


@dataclass(frozen=True)
class RefinedBlock:
    """The refined masks of one block.

    Attributes:
        keep: target name -> bool `[out, in]`.
        n_tokens: target name -> number of tokens it was judged on; empty if the refinement reads none.
        dense_probe: the dense block's output on the first batch, before the refinement changed the layer.
        error_before: relative squared error of the block's output on the first batch with the previous masks.
    """

    keep: Mapping[str, Tensor]
    n_tokens: Mapping[str, int]
    dense_probe: Tensor
    error_before: float | None


class BlockRefinement(MaskStep):
    """Improves the masks of all targets of one block together, by the output of the block."""

    part = "refinement"

    @property
    def reads_inputs(self) -> bool:
        """Always True, because it runs the block on calibration data."""
        return True

    @abstractmethod
    def refine_block(self, pruned: PrunedBlock) -> RefinedBlock:
        """Returns better masks for a block; does not change any weight."""


class Update(Step):
    """Recomputes the surviving weights of one target; the mask does not change."""

    part = "update"

    @abstractmethod
    def update(self, problem: Problem, found: Solution) -> Solution:
        """Returns the solution with new weights, zero where `found.keep` is False."""


def expert_warnings(target: Target, n_tokens: int) -> tuple[str, ...]:
    """Returns a warning if an expert read too few tokens to be judged: fewer than it has inputs."""
    if target.expert is None or n_tokens >= target.n_inputs:
        return ()
    if n_tokens == 0:
        return ("no calibration token was routed to it: judged as if every input were equally active",)
    return (f"judged on {n_tokens} tokens routed to it, fewer than its {target.n_inputs} inputs",)


def warnings_of_judgement(report: LayerReport, target: Target) -> tuple[str, ...]:
    """Returns a report's warnings without those of `expert_warnings`, which a later pass adds again."""
    reached = () if report.n_tokens is None else expert_warnings(target, report.n_tokens)
    return tuple(warning for warning in report.warnings if warning not in reached)


def dead_inputs(squared_norms: Tensor, consequence: str) -> tuple[str, ...]:
    """Returns a warning with its `consequence` if some inputs were never active."""
    dead = int((squared_norms == 0).sum())
    return (f"{dead} inputs were never active; their weights {consequence}",) if dead else ()


__all__ = [
    "UNREACHED",
    "BlockRefinement",
    "MaskStep",
    "Problem",
    "PrunedBlock",
    "RefinedBlock",
    "Refinement",
    "Solution",
    "Step",
    "Update",
    "dead_inputs",
    "expert_warnings",
    "warnings_of_judgement",
]
