"""A model family as the contract meets it: a tiny random model, and which of its weights may be pruned."""

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
"""Tokens that every family knows; all of them may be asked for."""

POSITIONS = 64
"""The longest sequence that every family takes."""

SEED = 11

Layout = Literal["out_in", "in_out"]
"""`out_in`: as a Linear holds it. `in_out`: transposed, as a Conv1D does. Experts stack either along a first
dimension."""


@dataclass(frozen=True)
class Weights:
    """The parameters that one glob names.

    Attributes:
        glob: over dotted parameter names.
        layout: how each matrix lies in memory.
    """

    glob: str
    layout: Layout = "out_in"

    def matrices(self, name: str, parameter: Tensor) -> dict[str, Tensor]:
        """Mask name -> matrix `[out, in]`, of one parameter: itself, or one an expert. They share memory."""
        matrices = (
            {f"{name}[{expert}]": matrix for expert, matrix in enumerate(parameter)}
            if parameter.ndim == 3
            else {name: parameter}
        )
        return {key: self.turned(matrix) for key, matrix in matrices.items()}

    def turned(self, matrix: Tensor) -> Tensor:
        """`matrix` from the way it lies to `[out, in]`, or back."""
        return matrix.T if self.layout == "in_out" else matrix


@dataclass(frozen=True)
class Family:
    """One model family.

    What may be pruned, and which way it lies, is written down here from the family's modelling code, and not
    asked of `methods.structure.decoder`: the methods and the checks both believe that file, so a matrix that
    it missed or took for its transpose would pass unnoticed.

    Attributes:
        name: what people call it here.
        special: what a method can get wrong on it.
        model_type: its name in transformers.
        config: what the configuration is made of.
        weights: the weights that may be pruned; no other parameter may change.
        adjusted: changes a fresh model in place.
    """

    name: str
    special: str
    model_type: str
    config: Mapping[str, object]
    weights: tuple[Weights, ...]
    adjusted: Callable[[PreTrainedModel], None] | None = field(default=None, repr=False)

    def build(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """A fresh model, the same each time, in evaluation mode; the random state is left as it was."""
        config: Any = AutoConfig.for_model(self.model_type, **self.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model = cast("PreTrainedModel", AutoModelForCausalLM.from_config(config))
        if self.adjusted is not None:
            self.adjusted(model)
        return cast("PreTrainedModel", model.to(dtype).eval())

    def weights_of(self, name: str) -> Weights | None:
        """The entry that names the parameter `name`; None where it may not be pruned."""
        return next((weights for weights in self.weights if fnmatchcase(name, weights.glob)), None)

    def matrices(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mask name -> matrix `[out, in]` of every weight that may be pruned, sharing its memory.

        Args:
            parameters: name -> value, of a whole model.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            if weights := self.weights_of(name):
                found |= weights.matrices(name, parameter.detach())
        return found


def target_name(mask_name: str) -> str:
    """How reports and patterns call the target whose mask has this name."""
    return mask_name.removesuffix(".weight")


def layer_of(parameter: str) -> str:
    """`model.layers.1.mlp.up_proj.weight` -> `model.layers.1`: what an error has to name at the least."""
    parts = parameter.split(".")
    index = next(place for place, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[: index + 1])


__all__ = ["POSITIONS", "VOCABULARY", "Family", "Layout", "Weights", "layer_of", "target_name"]
