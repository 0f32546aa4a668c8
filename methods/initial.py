"""The common part of methods that start from another method's mask."""

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
    """The masks that are refined or rebuilt.

    Attributes:
        result: the result of the initial method.
    """

    result: PruneResult

    def keep(self, target: Target) -> Tensor:
        """Returns the keep-mask of one target: bool `[out, in]`, on the target's device."""
        return target.unpack(self.result.keep[target.mask_name], target.device)

    def report(self, target: Target) -> LayerReport:
        """Returns the initial method's report of one target, without output errors (these change)."""
        return self._reports[target.name]

    @cached_property
    def _reports(self) -> dict[str, LayerReport]:
        return {report.module: _without_error(report) for report in self.result.layers}

    def warnings(self, target: Target) -> tuple[str, ...]:
        """Returns the initial method's warnings about one target, except that an expert read few tokens.

        The pass that finds the final mask adds this warning again if it applies there.
        """
        return warnings_of_judgement(self.report(target), target)

    def with_seconds(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Returns seconds by phase: those of the initial method plus `seconds`."""
        first = self.result.phases
        return {name: first.get(name, 0.0) + seconds.get(name, 0.0) for name in {**first, **seconds}}


@dataclass(frozen=True)
class GivenMask(Score):
    """Takes the place of a score if the masks were found in an earlier pass.

    Attributes:
        first: these masks, with the reports of their method.
    """

    first: InitialMask

    name: ClassVar[str] = "given-mask"
    version: ClassVar[int] = 1

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """The whole Linear; only the method that found the mask knows its actual groups."""
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
    """Prunes with initial methods, or returns the results of earlier prunes of the same weights."""

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
        """Returns the result of `method.prune` for the dense `model`, and prunes it in place.

        Args:
            method: the initial method.
            model: a dense model.
            pattern: what to remove.
            calibration: the calibration data.
            placement: where the layers are.
            weights: whether the caller needs the pruned weights; otherwise the model may stay dense.

        Returns:
            The result, equal to the bit. Its seconds are those spent in this call: none for a known result.
        """
        ...


_known: ContextVar[InitialPrunes | None] = ContextVar("initial prunes", default=None)


@contextmanager
def initial_prunes_from(known: InitialPrunes) -> Iterator[None]:
    """Lets methods that start from another method's mask get it from `known` while the body runs."""
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
    """Prunes `model` with an initial method, or takes the known result (see `initial_prunes_from`).

    Arguments and errors are those of `InitialPrunes.prune`.
    """
    known = _known.get()
    if known is None:
        return InitialMask(method.prune(model, pattern, calibration, placement=placement))
    return InitialMask(known.prune(method, model, pattern, calibration, placement, weights=weights))


def initial_settings(method: str, initial: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all settings of the initial method, so that a record contains its defaults too.

    Args:
        method: name of the method that starts from it.
        initial: name of the initial method.
        settings: the settings given by the user.

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
