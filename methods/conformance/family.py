"""A model family in the conformance suite: a tiny random model, and the weights of it that may be pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 97
"""Size of the vocabulary of every family."""

POSITIONS = 64
"""The longest sequence that every family supports."""

SEED = 11

Layout = Literal["out_in", "in_out"]
"""`out_in`: as in a Linear. `in_out`: transposed, as in a Conv1D. Stacked experts add a first dimension."""


@dataclass(frozen=True)
class Weights:
    """The parameters that match one glob.

    Attributes:
        glob: glob over dotted parameter names.
        layout: how each matrix is stored.
    """

    glob: str
    layout: Layout = "out_in"

    def matrices(self, name: str, parameter: Tensor) -> dict[str, Tensor]:
        """Returns mask name -> matrix `[out, in]` for one parameter; one matrix per expert if it is stacked.

        The matrices share memory with the parameter.
        """
        matrices = (
            {f"{name}[{expert}]": matrix for expert, matrix in enumerate(parameter)}
            if parameter.ndim == 3
            else {name: parameter}
        )
        return {key: self.turned(matrix) for key, matrix in matrices.items()}

    def turned(self, matrix: Tensor) -> Tensor:
        """Converts `matrix` from its stored layout to `[out, in]`, or back."""
        return matrix.T if self.layout == "in_out" else matrix


@dataclass(frozen=True)
class Family:
    """One model family.

    The weights that may be pruned, and their layout, are written here according to the family's modelling
    code, and not taken from `methods.structure.decoder`. The methods and the contract both rely on that file,
    so a matrix that it missed or transposed would otherwise go unnoticed.

    Attributes:
        name: name of the family in this suite.
        special: the property of the family that a method may handle wrongly.
        model_type: its name in transformers.
        config: settings of the configuration.
        weights: the weights that may be pruned; no other parameter may change.
        adjusted: function that changes a fresh model in place; None = no change.
    """

    name: str
    special: str
    model_type: str
    config: Mapping[str, object]
    weights: tuple[Weights, ...]
    adjusted: Callable[[PreTrainedModel], None] | None = field(default=None, repr=False)

    def build(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """Builds the model in evaluation mode, always with the same weights; keeps the random state."""
        config: Any = AutoConfig.for_model(self.model_type, **self.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model = cast("PreTrainedModel", AutoModelForCausalLM.from_config(config))
        if self.adjusted is not None:
            self.adjusted(model)
        return cast("PreTrainedModel", model.to(dtype).eval())

    def weights_of(self, name: str) -> Weights | None:
        """Returns the entry that matches the parameter `name`; None if it may not be pruned."""
        return next((weights for weights in self.weights if fnmatchcase(name, weights.glob)), None)

    def matrices(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns mask name -> matrix `[out, in]` of every weight that may be pruned, without copying.

        Args:
            parameters: name -> value of all parameters of a model.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            if weights := self.weights_of(name):
                found |= weights.matrices(name, parameter.detach())
        return found


def target_name(mask_name: str) -> str:
    """Returns the name, in reports and patterns, of the target whose mask has this name."""
    return mask_name.removesuffix(".weight")


def layer_of(parameter: str) -> str:
    """Returns the name of a parameter's layer, which an error has to name at least.

    `model.layers.1.mlp.up_proj.weight` -> `model.layers.1`.
    """
    parts = parameter.split(".")
    index = next(place for place, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[: index + 1])


__all__ = ["POSITIONS", "VOCABULARY", "Family", "Layout", "Weights", "layer_of", "target_name"]
