"""The situations in which a method is called: ordinary calls, and hard inputs that break careless code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.base import CalibrationSet
from methods.conformance.family import VOCABULARY, Family, layer_of, target_name
from methods.masks.pattern import Allocated, SemiStructured, SparsityPattern, Unstructured, parse_pattern

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKEN_SEED = 3


class Expectation(Enum):
    """The outcome that is required of a method."""

    HOLDS = "the prune succeeds and its promises hold"
    HOLDS_OR_FAILS = "its promises hold, or a PruningError names the module"
    FAILS = "a PruningError names the module"
    FAILS_IF_CALIBRATED = "a PruningError names the module if the method reads activations; others succeed"
    REFUSES = "an InputError of one line names the module, and nothing was changed"
    REFUSES_IF_CALIBRATED = "an InputError of one line if the method needs calibration; others succeed"
    UNCHANGED = "the prune succeeds, every mask is all True, and no weight changed"
    ENDS = "the exception of the caller's on_layer is passed on, and the model is as it was"

    def of(self, *, needs_calibration: bool) -> Expectation:
        """Returns the outcome that is required of a method with or without calibration."""
        if self is Expectation.FAILS_IF_CALIBRATED:
            return Expectation.FAILS if needs_calibration else Expectation.HOLDS
        if self is Expectation.REFUSES_IF_CALIBRATED:
            return Expectation.REFUSES if needs_calibration else Expectation.HOLDS
        return self


@dataclass(frozen=True)
class Situation:
    """One way of calling a method.

    Attributes:
        name: short name.
        described: what is special about the situation.
        expects: the required outcome.
        dtype: dtype of the model.
        batch_size: sequences per batch.
        n_samples: number of sequences of the calibration set.
        seqlen: tokens per sequence.
        one_token: whether all tokens of the calibration set are equal.
        without_calibration: whether calibration is None.
        training: whether the model is in training mode, with half of its parameters frozen.
        pattern: pattern that replaces the case's; None = the case's.
        uneven: whether target weights have, in turn, a sparsity that is 0.1 higher and 0.1 lower.
        prepare: function that changes the fresh model, and returns the layer that an error has to name, if
            any.
    """

    name: str
    described: str
    expects: Expectation = Expectation.HOLDS
    dtype: torch.dtype = torch.float32
    batch_size: int = 2
    n_samples: int = 5
    seqlen: int = 24
    one_token: bool = False
    without_calibration: bool = False
    training: bool = False
    pattern: str | None = None
    uneven: bool = False
    prepare: Callable[[PreTrainedModel, Family], str | None] | None = field(default=None, repr=False)

    def pattern_for(self, pattern: str, matrices: Iterable[str]) -> SparsityPattern:
        """Returns the pattern to prune to.

        Args:
            pattern: the pattern of the case.
            matrices: mask names of all weights that may be pruned.
        """
        base = parse_pattern(self.pattern or pattern)
        if not self.uneven or isinstance(base, SemiStructured):
            return base
        step = Fraction(1, 10)
        shares = (Unstructured(base.sparsity + step), Unstructured(base.sparsity - step))
        return Allocated(base, {target_name(name): shares[place % 2] for place, name in enumerate(matrices)})

    def calibration(self) -> CalibrationSet:
        """Creates the calibration set, always with the same tokens."""
        shape = (self.n_samples, self.seqlen)
        if self.one_token:
            return CalibrationSet(torch.full(shape, 5), "one token, repeated")
        generator = torch.Generator().manual_seed(_TOKEN_SEED)
        return CalibrationSet(torch.randint(0, VOCABULARY, shape, generator=generator), "random tokens")


def _in_last_layer(family: Family, model: PreTrainedModel) -> tuple[str, Tensor]:
    """Returns name and matrix of the last weight that may be pruned."""
    return list(family.matrices(dict(model.named_parameters())).items())[-1]


def _nan_weight(model: PreTrainedModel, family: Family) -> str:
    name, matrix = _in_last_layer(family, model)
    matrix[3, 5] = float("nan")
    return layer_of(name)


def _infinite_weight(model: PreTrainedModel, family: Family) -> str:
    name, matrix = _in_last_layer(family, model)
    matrix[2, 7] = float("inf")
    return layer_of(name)


def _infinite_activation(model: PreTrainedModel, family: Family) -> str:
    """Makes the first norm of the last layer multiply one feature by infinity."""
    layer = layer_of(_in_last_layer(family, model)[0])
    name = next(
        name
        for name, parameter in model.named_parameters()
        if name.startswith(f"{layer}.") and name.endswith("weight") and parameter.ndim == 1
    )
    model.get_parameter(name).data[3] = float("inf")
    return layer


def _dead_inputs(model: PreTrainedModel, family: Family) -> None:
    """Makes the first 8 features of the output of every norm and embedding 0."""
    dead = slice(0, 8)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Embedding):
            module.weight.data[:, dead] = 0
        elif isinstance(weight, Tensor) and weight.ndim == 1 and len(weight) == model.config.hidden_size:
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                bias.data[dead] = 0
            weight.data[dead] = 0
            probe = torch.arange(1.0, len(weight) + 1).to(weight)
            if bool(module(probe[None])[0, dead].count_nonzero()):
                weight.data[dead] = -1  # Gemma's norms multiply by 1 + weight


def _zeros(model: PreTrainedModel, family: Family) -> None:
    """Sets the first row and the first three columns of every matrix to 0."""
    for matrix in family.matrices(dict(model.named_parameters())).values():
        matrix[0] = 0
        matrix[:, :3] = 0


def _ties(model: PreTrainedModel, family: Family) -> None:
    """Rounds every weight to one of 15 values, as in a quantization to 4 bits."""
    for matrix in family.matrices(dict(model.named_parameters())).values():
        step = matrix.abs().max() / 7
        matrix.copy_((matrix / step).round() * step)


ORDINARY = (
    Situation("fp32", "weights in float32, three batches"),
    Situation("bf16", "weights in bfloat16", dtype=torch.bfloat16),
    Situation("training", "training mode, half of the parameters frozen", training=True, batch_size=5),
    Situation("fp16", "weights in float16, one sequence per batch", dtype=torch.float16, batch_size=1),
)
"""Calls that have to succeed; they take turns over patterns and families."""

HARD = (
    Situation("sparsity-0", "nothing is to be removed", Expectation.UNCHANGED, pattern="0"),
    Situation("indivisible", "7 divides no input dimension", Expectation.REFUSES, pattern="3:7"),
    Situation(
        "no-calibration",
        "calibration is None",
        Expectation.REFUSES_IF_CALIBRATED,
        without_calibration=True,
    ),
    Situation("nan-weight", "one weight is NaN", Expectation.FAILS, prepare=_nan_weight),
    Situation("infinite-weight", "one weight is infinite", Expectation.FAILS, prepare=_infinite_weight),
    Situation(
        "infinite-activation",
        "one feature is infinite in the last layer",
        Expectation.FAILS_IF_CALIBRATED,
        prepare=_infinite_activation,
    ),
    Situation("dead-inputs", "8 inputs are 0 for every token", prepare=_dead_inputs),
    Situation("zeros", "a row and three columns of each weight are 0 already", prepare=_zeros),
    Situation("ties", "weights on a grid of 15 values, so that scores tie", prepare=_ties),
    Situation(
        "one-token",
        "one sequence of one token, so that a Hessian has rank 1",
        Expectation.HOLDS_OR_FAILS,
        n_samples=1,
        seqlen=1,
    ),
    Situation(
        "same-tokens",
        "one token repeated, so that inputs are duplicates",
        Expectation.HOLDS_OR_FAILS,
        one_token=True,
    ),
    Situation("uneven", "targets have different sparsities", pattern="0.5", uneven=True),
    Situation("interrupted", "on_layer raises after the first report", Expectation.ENDS),
)
"""Inputs with a required outcome: a prune that keeps its promises, or an error that names the module."""

__all__ = ["HARD", "ORDINARY", "Expectation", "Situation"]
