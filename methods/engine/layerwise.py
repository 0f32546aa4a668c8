"""The walk of a recipe through the decoder layers.

Layer by layer: gather what the steps read of every target's inputs, once, with the layer still dense, on the
hidden states made by the layers already pruned; apply the steps block by block; move the hidden states on
through the pruned layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from methods.base import (
    CalibrationSet,
    LayerReport,
    PhaseClock,
    Placement,
    PruneResult,
    ignore_layer,
    with_calibration,
)
from methods.engine.hidden_states import LayerStream, at_rest, relative_error
from methods.engine.statistics import InputStatistics, SharedInputs, StatisticKind
from methods.engine.steps import (
    UNREACHED,
    BlockRefinement,
    MaskStep,
    Problem,
    PrunedBlock,
    RefinedBlock,
    Refinement,
    Solution,
    Step,
    Update,
    expert_warnings,
)
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import SparsityPattern, UniformPattern
from methods.masks.selection import require_finite
from methods.placement.layer_loading import residing
from methods.structure.decoder import Block, DecoderLayer, read_decoder
from methods.structure.target import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerwiseMethod(ABC):
    """A pruning method that takes every target through steps, layer by layer."""

    name: ClassVar[str]

    @abstractmethod
    def as_steps(self) -> Sequence[Step]:
        """A score, then refinements, then at most one update."""

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None = None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`; `initial` holds the score's mask where refinements changed it."""
        return prune_by_steps(
            self.name, self.as_steps(), model, pattern, calibration, placement=placement, on_layer=on_layer
        )


class Score(MaskStep, LayerwiseMethod):
    """Chooses the mask of one target, some also new weights with it. By itself it is a pruning method.

    Attributes:
        needs_calibration: whether it reads statistics.
        reconstructs: whether surviving weights may change.
    """

    part = "score"
    needs_calibration: ClassVar[bool]
    reconstructs: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "needs_calibration" not in cls.__dict__:
            cls.needs_calibration = bool(cls.statistics)

    @abstractmethod
    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """See `PruningMethod.comparison_group`."""

    @abstractmethod
    def choose(self, problem: Problem) -> Solution:
        """The mask of one target, and perhaps its new weights.

        Raises:
            PruningError: NaN or a singular matrix; names the target.
        """

    def as_steps(self) -> Sequence[Step]:
        """Itself."""
        return (self,)


def prune_by_steps(
    name: str,
    steps: Sequence[Step],
    model: PreTrainedModel,
    pattern: SparsityPattern,
    calibration: CalibrationSet | None,
    *,
    placement: Placement,
    on_layer: Callable[[LayerReport], None],
) -> PruneResult:
    """Prunes every target of `model` in place, in the order of the layers.

    Args:
        name: of the method, for messages.
        steps: a score, then refinements, then at most one update.
        model: the model.
        pattern: what to remove.
        calibration: what to look at; not looked at where no step reads inputs.
        placement: batch size, and where layers are.
        on_layer: called with each target's report.

    Returns:
        Masks, reports and seconds by phase; where a refinement changed the mask, `initial` holds the score's.

    Raises:
        InputError: the pattern does not fit a target, or calibration is missing.
        PruningError: see `PruningMethod.prune`.
    """
    samples = with_calibration(name, calibration) if any(step.reads_inputs for step in steps) else None
    decoder = read_decoder(model)
    decoder.check_pattern(pattern)
    for _, _, target in decoder.targets():
        for step in steps:
            if isinstance(step, MaskStep):
                step.comparison_group(target.shape, pattern.for_module(target.name))
    keep: dict[str, KeepMask] = {}
    initial: dict[str, KeepMask] = {}
    reports: list[LayerReport] = []
    with at_rest(model), residing(model, decoder, placement) as residence:
        clock = PhaseClock(device=residence.device)
        stream = None
        if samples is not None:
            with clock.phase("propagate"):
                stream = LayerStream.of_calibration(model, decoder, samples, residence)
        for layer in decoder.layers:
            # A layer's statistics and solutions are as large as itself or larger: they end with the call.
            with residence.loaded(layer):
                walk = _LayerWalk(layer, steps, pattern, stream, samples.n_samples if samples else 0, clock)
                pruned = walk.prune()
            for target, report in pruned:
                keep[target.mask_name] = walk.keep[target.name]
                if walk.refines:
                    initial[target.mask_name] = walk.initial[target.name]
                reports.append(report)
                on_layer(report)
    before = PruneResult(initial, (), {}) if initial else None
    return PruneResult(keep, tuple(reports), clock.seconds, initial=before)


@dataclass
class _LayerWalk:
    """One layer on its way through the steps.

    Attributes:
        layer: the decoder layer.
        steps: of the recipe.
        pattern: what to remove.
        stream: the hidden states that enter the layer; None where no step reads inputs.
        n_samples: calibration sequences.
        clock: adds up the phases.
        keep: target name -> its final mask.
        initial: target name -> the score's mask.
    """

    layer: DecoderLayer
    steps: Sequence[Step]
    pattern: SparsityPattern
    stream: LayerStream | None
    n_samples: int
    clock: PhaseClock
    keep: dict[str, KeepMask] = field(default_factory=dict)
    initial: dict[str, KeepMask] = field(default_factory=dict)

    @property
    def refines(self) -> bool:
        """Whether a step changes the score's mask."""
        return any(isinstance(step, Refinement | BlockRefinement) for step in self.steps)

    def prune(self) -> list[tuple[Target, LayerReport]]:
        """Prunes the layer, moves the hidden states on, and reports on each target."""
        gathered, dense_probes = self._gathered()
        outcomes = [self._prune_block(block, gathered) for block in self.layer.blocks]
        del gathered
        probes: list[Tensor] = []
        said: tuple[str, ...] = ()
        if self.stream is not None:
            with self.clock.phase("propagate"):
                probes = self.stream.advance(self.layer)
            said = self.stream.take_warnings()
        reports = []
        for number, (block, outcome) in enumerate(zip(self.layer.blocks, outcomes, strict=True)):
            refined = outcome.refined
            error = None
            if probes:
                dense = refined.dense_probe if refined else dense_probes[number]
                require_finite(dense, f"{self.layer.name} ({block.kind})", "its dense outputs")
                error = relative_error(probes[number], dense)
            for name, target in block.targets.items():
                solution, mask = outcome.solutions[name], self.keep[name]
                report = LayerReport(
                    module=name,
                    layer=self.layer.index,
                    block=block.kind,
                    shape=target.shape,
                    n_pruned=mask.numel - mask.n_kept,
                    error_before=refined.error_before if refined else None,
                    error_after=error,
                    damping=solution.damping,
                    swaps=solution.swaps,
                    n_tokens=outcome.n_tokens[name],
                    warnings=(*solution.warnings, *said),
                )
                reports.append((target, report))
                said = ()
        return reports

    def _gathered(self) -> tuple[SharedInputs[InputStatistics] | None, list[Tensor]]:
        """The statistics of all targets, and each block's dense output on the probe; none if none is read."""
        kinds = list(dict.fromkeys(kind for step in self.steps for kind in step.statistics))
        if self.stream is None or not kinds:
            return None, []
        with self.clock.phase("statistics"):
            return self.stream.within_memory(partial(_gather, self.stream, self.layer, kinds))

    def _prune_block(self, block: Block, gathered: SharedInputs[InputStatistics] | None) -> _BlockOutcome:
        """Takes one block through all steps, and gives its targets their final weights."""
        whole_block = any(isinstance(step, BlockRefinement) for step in self.steps)
        # Steps that see one target at a time take it through all of them before the next one: one weight in
        # fp32 at a time. Only where the block is run by itself are its dense weights held.
        dense = {name: target.weight.clone() for name, target in block.targets.items()} if whole_block else {}
        outcome = _BlockOutcome()
        order = list(self.layer.targets)
        groups = gathered.groups.values() if gathered else ()
        last_readers = {max(readers, key=order.index) for readers in groups}
        for name in block.targets:
            outcome.n_tokens[name] = gathered.n_tokens(name) if gathered else None
        for is_block, steps in _runs(self.steps):
            if is_block:
                for step in steps:
                    assert isinstance(step, BlockRefinement)
                    self._refine_block(step, block, dense, outcome)
                continue
            with self.clock.phase("solve"):
                for name, target in block.targets.items():
                    self._take(target, block, steps, dense.get(name), gathered, outcome)
                    if gathered is not None and name in last_readers:
                        gathered[name].drop_shared()
                    if not whole_block:
                        self._finish(target, None, outcome)
        if whole_block:
            with self.clock.phase("solve"):
                for name, target in block.targets.items():
                    self._finish(target, dense[name], outcome)
        return outcome

    def _take(
        self,
        target: Target,
        block: Block,
        steps: Sequence[Step],
        dense: Tensor | None,
        gathered: SharedInputs[InputStatistics] | None,
        outcome: _BlockOutcome,
    ) -> None:
        """Takes one target through steps that see it alone."""
        name, first = target.name, target.name not in outcome.solutions
        inputs = gathered.judged(target) if gathered else InputStatistics((), target)
        if first:
            inputs.require_finite(name)
            require_finite(target.weight, name, "its weights")
        weight = (target.weight if dense is None else dense).float().contiguous()
        n_tokens = gathered.n_tokens(name) if gathered else None
        problem = Problem(
            target, block.kind, weight, self.pattern.for_module(name), inputs, n_tokens, self.n_samples
        )
        found = outcome.solutions.get(name)
        for step in steps:
            if isinstance(step, Score):
                found = step.choose(problem)
                if self.refines:
                    # Refinements start from dense weights.
                    self.initial[name] = target.pack(found.keep)
                    found = found.without_weight
                continue
            assert found is not None, "a recipe begins with a score"
            if isinstance(step, Refinement):
                found = step.refine(problem, found).without_weight
            elif isinstance(step, Update) and not bool(found.keep.all()):
                # Where nothing is pruned there is nothing to make up for.
                found = step.update(problem, found.without_weight)
        assert found is not None
        outcome.solutions[name] = found

    def _refine_block(
        self, step: BlockRefinement, block: Block, dense: Mapping[str, Tensor], outcome: _BlockOutcome
    ) -> None:
        """Lets a step improve the masks of a block that is pruned by those found so far."""
        assert self.stream is not None
        found = outcome.solutions
        for name, target in block.targets.items():
            target.write(dense[name], found[name].keep)
        patterns = {name: self.pattern.for_module(name) for name in block.targets}
        keep = {name: found[name].keep for name in block.targets}
        refined = step.refine_block(
            PrunedBlock(self.stream, self.layer, block, patterns, dense, dense, keep, self.clock)
        )
        before = outcome.refined
        outcome.refined = refined if before is None else replace(refined, error_before=before.error_before)
        for name, target in block.targets.items():
            judged_on = refined.n_tokens.get(name)
            warnings = (UNREACHED,) if judged_on == 0 else ()
            if judged_on:
                outcome.n_tokens[name] = judged_on
            found[name] = found[name].refined(refined.keep[name], target, *warnings)

    def _finish(self, target: Target, dense: Tensor | None, outcome: _BlockOutcome) -> None:
        """Writes the final weights of one target, and keeps its mask in bits."""
        name = target.name
        solution = outcome.solutions[name]
        survivors = dense if solution.weight is None else solution.weight
        target.write(target.weight if survivors is None else survivors, solution.keep)
        if solution.weight is not None:
            require_finite(target.weight, name, f"its new weights in {target.weight.dtype}")
        self.keep[name] = target.pack(solution.keep)
        n_tokens = outcome.n_tokens[name]
        if solution.standing is not None:
            warnings, outcome.n_tokens[name] = solution.standing.warnings, solution.standing.n_tokens
        elif n_tokens is not None and (n_tokens or self.steps[0].statistics):
            warnings = expert_warnings(target, n_tokens)
        else:
            warnings = ()
        # Only words and numbers stay: a mask and a weight in fp32 are several times as large as both packed.
        nothing = torch.empty(0, dtype=torch.bool)
        said = (*warnings, *solution.warnings, *solution.weight_warnings)
        outcome.solutions[name] = replace(
            solution, keep=nothing, weight=None, weight_warnings=(), warnings=tuple(dict.fromkeys(said))
        )


@dataclass
class _BlockOutcome:
    """What is known of one block so far: a solution and the number of tokens of each target."""

    solutions: dict[str, Solution] = field(default_factory=dict)
    n_tokens: dict[str, int | None] = field(default_factory=dict)
    refined: RefinedBlock | None = None


def _runs(steps: Sequence[Step]) -> Iterator[tuple[bool, list[Step]]]:
    """Neighbouring steps that see a whole block, or one target, together: (whether a block, the steps)."""
    run: list[Step] = []
    for step in steps:
        if run and isinstance(step, BlockRefinement) != isinstance(run[-1], BlockRefinement):
            yield isinstance(run[-1], BlockRefinement), run
            run = []
        run.append(step)
    if run:
        yield isinstance(run[-1], BlockRefinement), run


def _gather(
    stream: LayerStream, layer: DecoderLayer, kinds: Sequence[StatisticKind]
) -> tuple[SharedInputs[InputStatistics], list[Tensor]]:
    """The statistics of all targets of a layer, and each block's output on the probe.

    After the probe no forward goes further than the last input it is run for: a quarter to a third of an MLP
    is left out.
    """
    shared = SharedInputs(layer.targets, partial(InputStatistics, kinds))
    probe: list[Tensor] = []
    for batch in range(stream.n_batches):
        last = shared.last
        with shared.collecting():
            if batch == 0:
                probe = [call.output for call in stream.calls_of(layer, batch)[1]]
            elif last is None:
                stream.forward(layer, batch)
            else:
                stream.forward_up_to(layer, batch, last.module)
    return shared, probe


__all__ = ["LayerwiseMethod", "Score", "prune_by_steps"]
