"""The parts that a one-shot prune is made of, and what passes between them.

A recipe chooses a mask by a score, improves it by refinements, and recomputes the surviving weights by an
update. Each step is a frozen dataclass whose fields are its settings. It sees one target at a time (a
`BlockRefinement` one block) and holds no state: hooks, devices and the walk through the layers are in
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

UNREACHED = "no token was routed to it when its mask was to be improved: the initial mask stands"


@dataclass(frozen=True)
class Problem:
    """One target to prune, as the steps of a recipe see it.

    Attributes:
        target: the target.
        block: `attention` or `mlp`.
        weight: its dense weight, fp32 `[out, in]`, contiguous; not to be changed.
        pattern: what to remove from it.
        inputs: the statistics of its inputs that the recipe's steps ask for.
        n_tokens: calibration tokens that it read; 0 for an expert that no token was routed to, whose
            statistics are those of every input active once; None where nothing was gathered.
        n_samples: calibration sequences.
        given_gradients: what `regional_gradients` gives; None unless a step of the recipe asks for them.
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
        """sum_t X_tj^2 of each input over all tokens, fp32 `[in]`; of a Gram matrix, the diagonal."""
        return self.inputs[InputNorms].value

    @property
    def gram(self) -> Tensor:
        """X^T X over all tokens (a sum, not a mean), fp32 `[in, in]`; shared, not to be changed."""
        return self.inputs[GramMatrix].value

    @property
    def regional_gradients(self) -> Tensor:
        """Mean over samples of the squared gradient of ||f(X)||_2, fp32 `[out, in]`; f is the dense layer."""
        assert self.given_gradients is not None, "the step does not declare that it reads them"
        return self.given_gradients

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once for all targets that read the same inputs.

        Args:
            key: names what is made and every setting that it depends on.
            make: makes it from the statistics alone.
        """
        return self.inputs.shared(key, make)


@dataclass(frozen=True)
class Solution:
    """What the steps so far decided for one target.

    Attributes:
        keep: bool `[out, in]`.
        weight: fp32 `[out, in]`, zero where pruned; None = survivors have their dense values.
        damping: added to the Hessian's diagonal, relative to its mean.
        swaps: pairs swapped against an initial mask.
        standing: the report of the method whose mask this is, where it was not judged here: on how many
            tokens it was, and its warnings, are reported in place of this pass's.
        warnings: what a reader should know of.
        weight_warnings: what a reader should know of the new weights; unsaid where they are not kept.
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
        """The mask alone: survivors have their dense values."""
        return replace(self, weight=None, weight_warnings=()) if self.weight is not None else self

    def refined(self, keep: Tensor, target: Target, *warnings: str) -> Solution:
        """The solution with a better mask: survivors dense, swaps counted, and judged here from now on."""
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
    """One part of a recipe.

    Attributes:
        part: where it stands in a recipe: `score`, `refinement` or `update`.
        name: what users call it; lower case, words joined by hyphens.
        version: raised with every change of what it decides: records made by an older version are stale.
        statistics: what it reads of a target's inputs. A recipe gathers each kind once for all its steps.
        reads_regional_gradients: whether it reads `Problem.regional_gradients`, which takes a forward and a
            backward of each dense layer.
        solver_bytes: of working memory, for each element of the target's Gram matrix `[in, in]` and beside
            it: factors, copies in float64. A preflight asks, so that a step that cannot fit is refused before
            anything runs.
    """

    part: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int]
    statistics: ClassVar[tuple[StatisticKind, ...]] = ()
    reads_regional_gradients: ClassVar[bool] = False
    solver_bytes: ClassVar[int] = 0

    @property
    def reads_inputs(self) -> bool:
        """Whether it looks at calibration data."""
        return bool(self.statistics) or self.reads_regional_gradients


class MaskStep(Step):
    """A step that chooses a mask or changes one."""

    @abstractmethod
    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """Rows x columns of the groups in which it counts: see `PruningMethod.comparison_group`.

        Each group of a refinement keeps as many weights as it had.

        Raises:
            InputError: it cannot do `pattern`.
        """


class Refinement(MaskStep):
    """Improves the mask of one target; survivors go back to their dense values."""

    part = "refinement"

    @abstractmethod
    def refine(self, problem: Problem, found: Solution) -> Solution:
        """The solution with a better mask; see `Solution.refined`."""


@dataclass(frozen=True)
class PrunedBlock:
    """One block of a layer with the masks found so far, as a `BlockRefinement` sees it.

    Attributes:
        stream: at the input of `layer`; earlier blocks of the layer are final.
        layer: the decoder layer.
        block: one of its blocks, whose weights are pruned by `keep`.
        patterns: target name -> what it is pruned to.
        dense: target name -> dense weight `[out, in]`.
        full: target name -> what each weight would be if nothing were pruned: its dense value, or what an
            initial method made of it.
        keep: target name -> bool `[out, in]`.
        clock: for the phases `statistics` and `solve`.
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
    """What became of the masks of one block.

    Attributes:
        keep: target name -> bool `[out, in]`.
        n_tokens: target name -> tokens it was judged on; empty where the refinement looks at none.
        dense_probe: the dense block's output on the first batch, in the layer as the refinement found it.
        error_before: relative squared error of the block's output there under the masks of before.
    """

    keep: Mapping[str, Tensor]
    n_tokens: Mapping[str, int]
    dense_probe: Tensor
    error_before: float | None


class BlockRefinement(MaskStep):
    """Improves the masks of all targets of one block together, on what the block gives with them."""

    part = "refinement"

    @property
    def reads_inputs(self) -> bool:
        """It runs the block."""
        return True

    @abstractmethod
    def refine_block(self, pruned: PrunedBlock) -> RefinedBlock:
        """Better masks for a block; it changes no weight."""


class Update(Step):
    """Recomputes the surviving weights of one target; the mask stays as it is."""

    part = "update"

    @abstractmethod
    def update(self, problem: Problem, found: Solution) -> Solution:
        """The solution with new weights, zero where `found.keep` is False."""


def expert_warnings(target: Target, n_tokens: int) -> tuple[str, ...]:
    """What to say of an expert that saw too few tokens to be judged: fewer than it has inputs."""
    if target.expert is None or n_tokens >= target.n_inputs:
        return ()
    if n_tokens == 0:
        return ("no calibration token was routed to it: judged as if every input were equally active",)
    return (f"judged on {n_tokens} tokens routed to it, fewer than its {target.n_inputs} inputs",)


def warnings_of_judgement(report: LayerReport, target: Target) -> tuple[str, ...]:
    """A report's warnings, but for how many tokens reached an expert: a later pass says that anew."""
    reached = () if report.n_tokens is None else expert_warnings(target, report.n_tokens)
    return tuple(warning for warning in report.warnings if warning not in reached)


def dead_inputs(squared_norms: Tensor, consequence: str) -> tuple[str, ...]:
    """The warning that some inputs were never active, and what that means; none where all were."""
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
