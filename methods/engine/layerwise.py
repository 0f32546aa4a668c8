"""Applies the steps of a recipe to the decoder layers, one after another.

For each layer: gather the input statistics that the steps need, once for every target, with the layer still
dense, on the hidden states that the already pruned layers produced; apply the steps block by block; move the
hidden states through the pruned layer.
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
from methods.engine.block_gradient import regional_gradients
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
    """A pruning method that applies steps to every target, layer by layer."""

    name: ClassVar[str]

    @abstractmethod
    def as_steps(self) -> Sequence[Step]:
        """Returns the steps: a score, then refinements, then at most one update."""

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None = None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`; `initial` has the score's masks if there are refinements."""
        return prune_by_steps(
            self.name, self.as_steps(), model, pattern, calibration, placement=placement, on_layer=on_layer
        )


class Score(MaskStep, LayerwiseMethod):
    """Chooses the mask of one target, and new weights if it reconstructs. Used alone it is a pruning method.

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
        """Chooses the mask of one target, and its new weights if the score reconstructs.

        Raises:
            PruningError: NaN or a singular matrix; names the target.
        """

    def as_steps(self) -> Sequence[Step]:
        """Returns this score as the only step."""
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
        name: the method's name, for messages.
        steps: a score, then refinements, then at most one update.
        model: the model.
        pattern: what to remove.
        calibration: the calibration data; ignored if no step reads inputs.
        placement: batch size, and where layers are.
        on_layer: called with each target's report.

    Returns:
        Masks, reports and seconds by phase. If there are refinements, `initial` has the score's masks.

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
            # A layer's statistics and solutions are at least as large as the layer: free them with the call.
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
    """Applies the steps to one layer.

    Attributes:
        layer: the decoder layer.
        steps: the steps of the recipe.
        pattern: what to remove.
        stream: the hidden states that enter the layer; None if no step reads inputs.
        n_samples: number of calibration sequences.
        clock: adds up the seconds by phase.
        keep: target name -> its final mask.
        initial: target name -> the score's mask.
        gradients: target name -> `Problem.regional_gradients`, until it is pruned; empty unless a step reads
            them.
    """

    layer: DecoderLayer
    steps: Sequence[Step]
    pattern: SparsityPattern
    stream: LayerStream | None
    n_samples: int
    clock: PhaseClock
    keep: dict[str, KeepMask] = field(default_factory=dict)
    initial: dict[str, KeepMask] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    @property
    def refines(self) -> bool:
        """Whether a step changes the score's mask."""
        return any(isinstance(step, Refinement | BlockRefinement) for step in self.steps)

    def prune(self) -> list[tuple[Target, LayerReport]]:
        """Prunes the layer, moves the hidden states to its output, and returns a report for each target."""
        gathered, dense_probes = self._gathered()
        if self.stream is not None and any(step.reads_regional_gradients for step in self.steps):
            with self.clock.phase("statistics"):
                self._require_finite(gathered)
                self.gradients = regional_gradients(self.stream, self.layer)
        outcomes = [self._prune_block(block, gathered) for block in self.layer.blocks]
        del gathered
        probes: list[Tensor] = []
        stream_warnings: tuple[str, ...] = ()
        if self.stream is not None:
            with self.clock.phase("propagate"):
                probes = self.stream.advance(self.layer)
            stream_warnings = self.stream.take_warnings()
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
                    warnings=(*solution.warnings, *stream_warnings),
                )
                reports.append((target, report))
                stream_warnings = ()
        return reports

    def _gathered(self) -> tuple[SharedInputs[InputStatistics] | None, list[Tensor]]:
        """Gathers the statistics of all targets, and each block's dense output on the first batch.

        Returns None and an empty list if no step reads statistics.
        """
        kinds = list(dict.fromkeys(kind for step in self.steps for kind in step.statistics))
        if self.stream is None or not kinds:
            return None, []
        with self.clock.phase("statistics"):
            return self.stream.within_memory(partial(_gather, self.stream, self.layer, kinds))

    def _require_finite(self, gathered: SharedInputs[InputStatistics] | None) -> None:
        """Raises `NonFiniteError` naming the first target that reads or holds NaN, which gradients cannot."""
        for name, target in self.layer.targets.items():
            if gathered is not None:
                gathered[name].require_finite(name)
            require_finite(target.weight, name, "its weights")

    def _prune_block(self, block: Block, gathered: SharedInputs[InputStatistics] | None) -> _BlockOutcome:
        """Applies all steps to one block, and writes the final weights of its targets."""
        whole_block = any(isinstance(step, BlockRefinement) for step in self.steps)
        # Without a step for whole blocks, all steps are applied to one target before the next one, so that
        # only one weight in fp32 exists at a time. A step for whole blocks needs the block's dense weights.
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
        """Applies steps that work on single targets to one target."""
        name, first = target.name, target.name not in outcome.solutions
        inputs = gathered.judged(target) if gathered else InputStatistics((), target)
        if first:
            inputs.require_finite(name)
            require_finite(target.weight, name, "its weights")
        weight = (target.weight if dense is None else dense).float().contiguous()
        n_tokens = gathered.n_tokens(name) if gathered else None
        problem = Problem(
            target,
            block.kind,
            weight,
            self.pattern.for_module(name),
            inputs,
            n_tokens,
            self.n_samples,
            self.gradients.pop(name, None),
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
                # If nothing is pruned there is no error to compensate.
                found = step.update(problem, found.without_weight)
        assert found is not None
        outcome.solutions[name] = found

    def _refine_block(
        self, step: BlockRefinement, block: Block, dense: Mapping[str, Tensor], outcome: _BlockOutcome
    ) -> None:
        """Lets a step improve the masks of a whole block, which is pruned by the masks found so far."""
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
        """Writes the final weights of one target, and stores its packed mask."""
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
        # Keep only warnings and numbers: the bool mask and the fp32 weight are large, and stored already.
        nothing = torch.empty(0, dtype=torch.bool)
        collected = (*warnings, *solution.warnings, *solution.weight_warnings)
        outcome.solutions[name] = replace(
            solution, keep=nothing, weight=None, weight_warnings=(), warnings=tuple(dict.fromkeys(collected))
        )


@dataclass
class _BlockOutcome:
    """The results of one block so far: a solution and the number of tokens of each target."""

    solutions: dict[str, Solution] = field(default_factory=dict)
    n_tokens: dict[str, int | None] = field(default_factory=dict)
    refined: RefinedBlock | None = None


def _runs(steps: Sequence[Step]) -> Iterator[tuple[bool, list[Step]]]:
    """Groups consecutive steps of one kind: yields (whether they work on whole blocks, the steps)."""
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
    """Gathers the statistics of all targets of a layer, and each block's output on the first batch.

    After the first batch every forward ends at the last input that is needed, which saves a quarter to a
    third of an MLP.
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
