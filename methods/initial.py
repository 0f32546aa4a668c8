"""What methods that start from another method's mask have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from methods.base import CalibrationSet, LayerReport, Placement, PruneResult, PruningMethod
from methods.engine.layerwise import Score
from methods.engine.steps import Problem, Solution, warnings_of_judgement
from methods.errors import InputError
from methods.layer_report import NOT_FINITE
from methods.registry import build, settings_of
from methods.structure.target import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.masks.pattern import SparsityPattern, UniformPattern


@dataclass(frozen=True)
class InitialMask:
    """The mask that is refined or rebuilt.

    Attributes:
        result: what the initial method did.
    """

    result: PruneResult

    def keep(self, target: Target) -> Tensor:
        """Its keep-mask of one target: bool `[out, in]`, on the target's device."""
        return target.unpack(self.result.keep[target.mask_name], target.device)

    def report(self, target: Target) -> LayerReport:
        """What the initial method said of one target, but for the output error, which is judged anew."""
        return self._reports[target.name]

    @cached_property
    def _reports(self) -> dict[str, LayerReport]:
        return {report.module: _without_error(report) for report in self.result.layers}

    def warnings(self, target: Target) -> tuple[str, ...]:
        """What the initial method said of one target, but for how many tokens reached an expert.

        That is said anew on the stream that the final mask is found on.
        """
        return warnings_of_judgement(self.report(target), target)

    def with_seconds(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Seconds by phase: its own and those that followed."""
        first = self.result.phases
        return {name: first.get(name, 0.0) + seconds.get(name, 0.0) for name in {**first, **seconds}}


@dataclass(frozen=True)
class GivenMask(Score):
    """Stands in for a score where the mask was found before, in a pass of its own.

    Attributes:
        first: that mask, with what its method said of each target.
    """

    first: InitialMask

    name: ClassVar[str] = "given-mask"
    version: ClassVar[int] = 1

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear: how its parts were counted is for the method that found the mask to say."""
        return shape

    def choose(self, problem: Problem) -> Solution:
        """See `Score.choose`."""
        report = self.first.report(problem.target)
        return Solution(self.first.keep(problem.target), damping=report.damping, standing=report)


def _without_error(report: LayerReport) -> LayerReport:
    of_error = (NOT_FINITE["error_before"], NOT_FINITE["error_after"])
    warnings = tuple(warning for warning in report.warnings if warning not in of_error)
    return replace(report, error_before=None, error_after=None, warnings=warnings)


class InitialPrunes(Protocol):
    """Prunes by initial methods, or knows what they did before to the same weights."""

    def prune(
        self,
        method: PruningMethod,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        placement: Placement,
        *,
        weights: bool,
    ) -> PruneResult:
        """What `method.prune` gives for the dense `model`, which is left as that leaves it.

        Args:
            method: the initial method.
            model: a dense model.
            pattern: what to remove.
            calibration: what to look at.
            placement: where the layers are.
            weights: whether the caller goes on from the pruned weights; otherwise they may stay dense.

        Returns:
            The result, to the bit. Its seconds are those that were spent just now: none where it was known.
        """
        ...


_known: ContextVar[InitialPrunes | None] = ContextVar("initial prunes", default=None)


@contextmanager
def initial_prunes_from(known: InitialPrunes) -> Iterator[None]:
    """Methods that start from another method's mask ask `known` for it while the body runs."""
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


def initial_mask(
    method: PruningMethod,
    model: PreTrainedModel,
    pattern: SparsityPattern,
    calibration: CalibrationSet | None,
    placement: Placement,
    *,
    weights: bool = True,
) -> InitialMask:
    """Prunes `model` by an initial method, or gives what that is known to do (`initial_prunes_from`).

    Args and errors are those of `InitialPrunes.prune`.
    """
    known = _known.get()
    if known is None:
        return InitialMask(method.prune(model, pattern, calibration, placement=placement))
    return InitialMask(known.prune(method, model, pattern, calibration, placement, weights=weights))


def initial_settings(method: str, initial: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the initial method in full, so that a record holds its defaults too.

    Args:
        method: the method that starts from it.
        initial: the initial method's name.
        settings: those that are given.

    Raises:
        InputError: `initial` is `method`, is unknown, or does not take these settings.
    """
    if initial == method:
        raise InputError(f"method {method!r} cannot be its own initial method")
    return settings_of(build(initial, settings))


__all__ = [
    "GivenMask",
    "InitialMask",
    "InitialPrunes",
    "initial_mask",
    "initial_prunes_from",
    "initial_settings",
]
