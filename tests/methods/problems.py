"""One target by itself, with what is known of its inputs given outright."""

from collections.abc import Mapping

from torch import Tensor, nn

from methods.engine.statistics import GramMatrix, InputStatistic, InputStatistics, StatisticKind
from methods.engine.steps import Problem
from methods.masks.pattern import UniformPattern, parse_pattern
from methods.structure.target import Target


class GivenGram(GramMatrix):
    """A Gram matrix in whatever type it is given."""

    def __init__(self, gram: Tensor) -> None:
        self._sum, self._is_mirrored = gram, True


def problem_of(
    weight: Tensor,
    inputs: Tensor | Mapping[StatisticKind, InputStatistic],
    pattern: str | UniformPattern,
    *,
    name: str = "layer",
    block: str = "attention",
    n_samples: int = 2,
) -> Problem:
    """The problem of a Linear, given its Gram matrix (with two samples, its Hessian) or other statistics."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    target = Target(name, module, "weight", f"{name}.weight")
    statistics = InputStatistics((), target)
    statistics._by_kind = {GramMatrix: GivenGram(inputs)} if isinstance(inputs, Tensor) else dict(inputs)
    parsed = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    return Problem(target, block, weight, parsed, statistics, n_tokens=100, n_samples=n_samples)
